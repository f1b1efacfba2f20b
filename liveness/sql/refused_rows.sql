-- Rows that their tables refuse to put back, and how many there are in all.
-- $1: how many to name at most
SELECT work, worker, epoch, id, refused, count(*) OVER () AS of_all
FROM liveness.remainder
WHERE refused IS NOT NULL
ORDER BY work, worker, epoch, id
LIMIT $1
