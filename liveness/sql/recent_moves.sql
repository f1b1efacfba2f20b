-- The last pieces of work that were taken back, the last one first, and why: the end of the life that had held them, or
-- that it left them out.
-- $1: how many
SELECT
    h.work, h.id, h.worker, h.epoch, h.reclaimed_at, h.observed, h.outcome,
    CASE WHEN EXISTS (
        SELECT FROM liveness.leak AS k
        WHERE k.work = h.work AND k.id = h.id AND k.worker = h.worker AND k.epoch = h.epoch AND k.reclaimed
            AND k.found_at = h.reclaimed_at
    ) THEN 'leaked' ELSE x.reason END AS reason
FROM (SELECT * FROM liveness.reclaim ORDER BY seq DESC LIMIT $1) AS h
LEFT JOIN liveness.expiration AS x ON x.worker = h.worker AND x.epoch = h.epoch
ORDER BY h.seq DESC
