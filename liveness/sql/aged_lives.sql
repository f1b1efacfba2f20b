-- The next lives that ended long ago, in the order of their ends.
-- $1: seconds  $2: how many at most  $3, $4, $5: behind which (expired_at, worker, epoch)
SELECT x.expired_at, x.worker, x.epoch, x.offlined IS NOT NULL AS offlined
FROM liveness.expiration AS x
WHERE x.expired_at < now() - make_interval(secs => $1) AND (x.expired_at, x.worker, x.epoch) > ($3, $4, $5)
ORDER BY x.expired_at, x.worker, x.epoch
LIMIT $2
