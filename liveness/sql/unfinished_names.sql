-- Names with reclaims that are not finished.
-- $1: how many at most  $2: mode is observe
SELECT DISTINCT x.worker
FROM (
    SELECT u.worker FROM liveness.expiration AS u
    WHERE u.finished_at IS NULL AND (u.observed OR NOT $2) {unfinished_and_ours}
    ORDER BY u.expired_at, u.worker
    LIMIT $1
) AS x
