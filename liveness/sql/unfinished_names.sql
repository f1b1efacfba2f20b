-- Names with reclaims that are not finished.
-- $1: how many at most  $2: mode is observe
SELECT DISTINCT x.worker
FROM (
    SELECT worker FROM liveness.expiration
    WHERE finished_at IS NULL AND (observed OR NOT $2)
    ORDER BY expired_at, worker
    LIMIT $1
) AS x
