-- Take hold of reclaims that are not finished; those that another replica works on are passed over.
-- In mode observe only those that were observed: the others would touch the host's tables.
-- $1: how many at most  $2: names  $3: mode is observe
SELECT worker, epoch, observed, traceparent
FROM liveness.expiration
WHERE finished_at IS NULL AND worker = ANY ($2::text[]) AND (observed OR NOT $3)
ORDER BY expired_at, worker
LIMIT $1
FOR UPDATE SKIP LOCKED
