-- How long ago, in seconds, the last life of each of these names ended; only of names that have no open one.
-- $1: names
SELECT e.worker, greatest(extract(epoch FROM clock_timestamp() - max(e.ended_at)), 0)::double precision AS ago
FROM liveness.epoch AS e
WHERE e.worker = ANY ($1::text[])
GROUP BY e.worker
HAVING bool_and(e.ended_at IS NOT NULL)
