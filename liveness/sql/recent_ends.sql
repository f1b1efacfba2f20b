-- The last lives that ended, the last one first.
-- $1: how many
SELECT x.worker, x.epoch, x.epoch AS life, {why_life}
FROM liveness.expiration AS x
JOIN liveness.epoch AS e ON e.worker = x.worker AND e.epoch = x.epoch
ORDER BY x.expired_at DESC, x.worker DESC, x.epoch DESC
LIMIT $1
