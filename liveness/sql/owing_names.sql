-- Names that live again and whose registry rows WE set OFFLINE and have not set back.
SELECT DISTINCT x.worker
FROM liveness.expiration AS x
WHERE x.offlined IS NOT NULL AND x.recovered_at IS NOT NULL
    AND EXISTS (SELECT FROM liveness.epoch AS o WHERE o.worker = x.worker AND o.ended_at IS NULL)
