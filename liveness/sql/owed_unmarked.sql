-- Of these lives, those by which alone a row of a registry without a status is known not to be up: of each name the last
-- one that ended, where nobody has beaten since and the row is there. Without it, who is long dead would be up again.
-- $1: [{worker, epoch}]
SELECT x.worker, x.epoch
FROM liveness.expiration AS x
JOIN jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint) USING (worker, epoch)
WHERE x.recovered_at IS NULL AND NOT x.observed AND x.reason <> 'restarted'
    AND EXISTS (
        SELECT FROM {registry} AS r
        WHERE {registry_named x.worker} AND coalesce({registry_heartbeat}, '-infinity') < x.expired_at
    )
    AND NOT EXISTS (
        SELECT FROM liveness.expiration AS n
        WHERE n.worker = x.worker AND n.recovered_at IS NULL AND NOT n.observed AND n.reason <> 'restarted'
            AND (n.expired_at, n.epoch) > (x.expired_at, x.epoch)
    )
