-- The next rows with events to publish, in the order in which they were written: rows whole, with so many events that
-- the last one passes the limit.
-- $1: behind which seq  $2: how many events
SELECT
    o.seq, o.id::text AS id, o.type, o.subject, o.worker, o.observed, o.transaction_id,
    liveness.rfc3339(o.created_at) AS time, o.told::text AS told, o.items::text AS items,
    o.hash IS NOT NULL AS hashed, o.traceparent
FROM (
    SELECT n.*, sum(n.events) OVER (ORDER BY n.seq) - n.events AS ahead
    FROM (SELECT * FROM liveness.outbox WHERE seq > $1 AND {ours} ORDER BY seq LIMIT $2) AS n
) AS o
WHERE o.ahead < $2
ORDER BY o.seq
