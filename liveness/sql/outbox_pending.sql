-- The next events to publish, in the order in which they were written.
-- $1: behind which seq  $2: how many
SELECT seq, id::text AS id, type, subject, worker, observed, transaction_id, liveness.rfc3339(created_at) AS time,
    data::text AS data, hash IS NOT NULL AS hashed
FROM liveness.outbox
WHERE seq > $1 AND {ours}
ORDER BY seq
LIMIT $2
