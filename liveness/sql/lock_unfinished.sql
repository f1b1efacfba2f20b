-- Take hold of reclaims that are not finished; those that another replica works on are passed over.
-- $1: how many at most
SELECT worker, epoch, observed
FROM liveness.expiration
WHERE finished_at IS NULL
ORDER BY expired_at, worker
LIMIT $1
FOR UPDATE SKIP LOCKED
