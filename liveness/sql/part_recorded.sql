recorded AS (
    INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count, observed)
    SELECT
        $5, m.id, m.worker, m.epoch,
        1 + (SELECT count(*) FROM liveness.reclaim AS h WHERE h.work = $5 AND h.id = m.id AND NOT h.observed), $7
    FROM moved AS m
    RETURNING id, worker, epoch, reclaim_count
),
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, data)
    SELECT
        $5 || '.reclaimed', m.id, m.worker, $7,
        json_build_object(
            $6::text, m.id, 'kind', m.kind, 'queue', m.queue, 'former_worker', m.worker, 'incarnation', e.incarnation,
            'epoch', m.epoch, 'reason', e.reason, 'last_heartbeat_at', liveness.rfc3339(e.last_heartbeat_at),
            'lapsed_at', liveness.rfc3339(e.lapsed_at), 'reclaimed_at', liveness.rfc3339(now()),
            'reclaim_count', c.reclaim_count
        )
    FROM moved AS m
    JOIN recorded AS c USING (id, worker, epoch)
    JOIN ended AS e USING (worker, epoch)
)
