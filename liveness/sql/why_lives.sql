-- The last lives of one name, and how they ended.
-- $1: name  $2: how many
SELECT e.worker, e.epoch, e.epoch AS life, {why_life}
FROM liveness.epoch AS e
LEFT JOIN liveness.expiration AS x USING (worker, epoch)
WHERE e.worker = $1
ORDER BY e.epoch DESC
LIMIT $2
