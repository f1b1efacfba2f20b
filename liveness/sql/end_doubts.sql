-- These doubts are over: the worker was heard again, or does something again, and that is told; or its life is over, of
-- which other news tells. Whoever ends a life just now holds its row, and the next pass sees what came of it.
-- $1: [{worker, kind, epoch}]  $2: observed
WITH offered AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS o (worker text, kind text, epoch bigint)
),
lives AS (
    SELECT o.worker, o.kind, o.epoch, e.incarnation, e.hash
    FROM offered AS o
    JOIN liveness.epoch AS e USING (worker, epoch)
    WHERE e.ended_at IS NULL
    ORDER BY e.worker
    FOR KEY SHARE OF e SKIP LOCKED
),
well AS (
    UPDATE liveness.doubt AS d
    SET over_at = now()
    FROM lives AS l
    WHERE d.worker = l.worker AND d.kind = l.kind AND d.epoch = l.epoch AND d.over_at IS NULL
    RETURNING l.worker, l.kind, l.epoch, l.incarnation, l.hash
),
ended AS (
    UPDATE liveness.doubt AS d
    SET over_at = now()
    FROM offered AS o
    WHERE d.worker = o.worker AND d.kind = o.kind AND d.epoch = o.epoch AND d.over_at IS NULL
        AND NOT EXISTS (
            SELECT FROM liveness.epoch AS e WHERE e.worker = o.worker AND e.epoch = o.epoch AND e.ended_at IS NULL
        )
    RETURNING o.worker, o.kind
),
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, hash)
    SELECT
        'worker.recovered', w.worker, w.worker, $2,
        json_build_object(
            'worker', w.worker, 'incarnation', w.incarnation, 'epoch', w.epoch, 'former_incarnation', w.incarnation,
            'former_epoch', w.epoch, 'former_reason', w.kind, 'expired_at', NULL,
            'recovered_at', liveness.rfc3339(now())
        ),
        w.hash
    FROM well AS w
    ORDER BY w.worker
)
SELECT w.worker, w.kind, (SELECT pg_notify('liveness_outbox', '')) AS told FROM well AS w
UNION ALL SELECT e.worker, e.kind, NULL FROM ended AS e
