-- The last epoch of each of these names that have no open one, and how long ago, in seconds, the last life ended.
-- $1: names
SELECT e.worker, max(e.epoch) AS epoch,
    greatest(extract(epoch FROM clock_timestamp() - max(e.ended_at)), 0)::double precision AS ago
FROM liveness.epoch AS e
WHERE e.worker = ANY ($1::text[])
GROUP BY e.worker
HAVING bool_and(e.ended_at IS NOT NULL)
