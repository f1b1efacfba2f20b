-- Names without an open epoch that may live all the same: up in the registry, or owner of RUNNING work. With the ttl of
-- their last life, if we knew one.
-- $1: statuses that are up  $2...: running status of each work table
WITH named AS (
    SELECT {registry_name} AS worker FROM {registry} AS r WHERE {registry_up $1}
    {union_owners}
)
SELECT n.worker, (SELECT p.ttl FROM liveness.epoch AS p WHERE p.worker = n.worker ORDER BY p.epoch DESC LIMIT 1) AS ttl
FROM named AS n
WHERE n.worker IS NOT NULL
    -- What a reclaim that is not finished has still to put back is nobody's.
    AND NOT EXISTS (SELECT FROM liveness.expiration AS x WHERE x.worker = n.worker AND x.finished_at IS NULL)
    AND NOT EXISTS (SELECT FROM liveness.epoch AS o WHERE o.worker = n.worker AND o.ended_at IS NULL)
GROUP BY n.worker
