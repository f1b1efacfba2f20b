-- Which of these names differ only in case from a name that may live: an open epoch, or up in the registry?
-- $1: names  $2: statuses that are up
-- One pass over the registry however many names: it needs no index of the host's.
WITH asked AS (
    SELECT a.worker, lower(a.worker) AS folded FROM unnest($1::text[]) AS a (worker)
),
others AS (
    SELECT a.worker, e.worker AS other
    FROM asked AS a
    JOIN liveness.epoch AS e ON lower(e.worker) = a.folded AND e.ended_at IS NULL
    UNION ALL
    SELECT a.worker, {registry_name}
    FROM {registry} AS r
    JOIN asked AS a ON lower({registry_name}) = a.folded
    WHERE {registry_up $2}
)
SELECT o.worker, min(o.other) AS other
FROM others AS o
WHERE o.other <> o.worker
GROUP BY o.worker
