-- How many events wait, and how long the oldest has waited, in seconds.
SELECT coalesce(sum(events), 0)::bigint AS events, extract(epoch FROM now() - min(created_at))::double precision AS oldest
FROM liveness.outbox
WHERE {ours}
