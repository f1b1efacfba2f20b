counted AS (
    SELECT
        m.*,
        1 + (SELECT count(*) FROM liveness.reclaim AS h WHERE h.work = $5 AND h.id = m.id AND NOT h.observed)
            AS reclaim_count
    FROM moved AS m
),
recorded AS (
    INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count, observed)
    SELECT $5, c.id, c.worker, c.epoch, c.reclaim_count, $7
    FROM counted AS c
),
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, data, hash)
    SELECT
        $5 || '.reclaimed', c.id, c.worker, $7,
        json_build_object(
            $6::text, c.id, 'kind', c.kind, 'queue', c.queue, 'former_worker', c.worker, 'incarnation', c.incarnation,
            'epoch', c.epoch, 'reason', c.reason, 'last_heartbeat_at', c.last_heartbeat_at, 'lapsed_at', c.lapsed_at,
            'reclaimed_at', (SELECT liveness.rfc3339(now())), 'reclaim_count', c.reclaim_count
        ),
        c.hash
    FROM counted AS c
)
