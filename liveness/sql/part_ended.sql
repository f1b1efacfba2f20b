ended AS (
    SELECT
        x.worker, x.epoch, x.incarnation, x.reason, x.untouched_for,
        liveness.rfc3339(x.last_heartbeat_at) AS last_heartbeat_at, liveness.rfc3339(x.lapsed_at) AS lapsed_at,
        (SELECT e.hash FROM liveness.epoch AS e WHERE e.worker = x.worker AND e.epoch = x.epoch) AS hash
    FROM liveness.expiration AS x
    JOIN jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint) USING (worker, epoch)
)
