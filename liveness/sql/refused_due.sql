-- Rows that were refused and are to be tried again, those first that have waited longest.
-- Of kinds of work that are described no more, nothing can be tried: they would stand first for ever.
-- A service of before the pause takes it for a refusal, and has the row wait longer: that has to wait for nothing.
-- $1: how many at most  $2: kinds of work
SELECT work, worker, epoch, id
FROM liveness.remainder
WHERE refused IS NOT NULL AND (retry_at <= now() OR refused LIKE '%Error: paused by % since %') AND work = ANY ($2::text[])
ORDER BY retry_at
LIMIT $1
