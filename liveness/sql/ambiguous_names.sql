-- Which of these names differ only in case from a name that may live: an open epoch, or up in the registry?
-- $1: names  $2: statuses that are up
SELECT a.worker, min(o.other) AS other
FROM unnest($1::text[]) AS a (worker)
CROSS JOIN LATERAL (
    SELECT e.worker AS other FROM liveness.epoch AS e
    WHERE lower(e.worker) = lower(a.worker) AND e.ended_at IS NULL
    UNION ALL
    SELECT {registry_name} FROM {registry} AS r
    WHERE lower({registry_name}) = lower(a.worker) AND {registry_status}::text = ANY ($2::text[])
) AS o
WHERE o.other <> a.worker
GROUP BY a.worker
