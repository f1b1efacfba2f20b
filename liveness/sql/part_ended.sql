ended AS (
    SELECT
        x.worker, x.epoch, x.reason, x.untouched_for, x.crash, x.evidence ? 'followed' AS followed,
        -- What the events of one life have in common, put together once for all of them.
        json_build_object(
            'former_worker', x.worker, 'incarnation', x.incarnation, 'epoch', x.epoch, 'reason', x.reason,
            'last_heartbeat_at', liveness.rfc3339(x.last_heartbeat_at), 'lapsed_at', liveness.rfc3339(x.lapsed_at),
            'reclaimed_at', liveness.rfc3339(now())
        )::text AS told,
        (SELECT e.hash FROM liveness.epoch AS e WHERE e.worker = x.worker AND e.epoch = x.epoch) AS hash
    FROM liveness.expiration AS x
    JOIN jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint) USING (worker, epoch)
)
