-- Rows that were refused and are to be tried again, those first that have waited longest.
-- $1: how many at most
SELECT work, worker, epoch, id FROM liveness.remainder WHERE refused IS NOT NULL AND retry_at <= now() ORDER BY retry_at LIMIT $1
