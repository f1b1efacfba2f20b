-- Note which reclaims of the ended lives are finished, where the registry has no status in which an end could be marked.
-- $1: [{worker, epoch}]
UPDATE liveness.expiration AS x
SET finished_at = now()
FROM jsonb_to_recordset($1::jsonb) AS e (worker text, epoch bigint)
WHERE x.worker = e.worker AND x.epoch = e.epoch
    AND NOT EXISTS (SELECT FROM liveness.remainder AS d WHERE d.worker = e.worker AND d.epoch = e.epoch AND d.refused IS NULL)
