moved AS (
    SELECT
        {id}::text AS id, {kind} AS kind, {queue} AS queue, t.worker, t.epoch, t.incarnation, t.reason,
        t.last_heartbeat_at, t.lapsed_at
    FROM {work_table} AS w
    JOIN taken AS t ON {id} = t.id
    WHERE $3::text IS NOT NULL
        -- Nothing was put back, so what was observed once is found again and again; it is news only once.
        AND NOT EXISTS (
            SELECT FROM liveness.reclaim AS h
            WHERE h.work = $5 AND h.id = {id}::text AND h.worker = t.worker AND h.observed
                AND h.reclaimed_at > {touched}
        )
)
