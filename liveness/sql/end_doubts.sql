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
over AS (
    UPDATE liveness.doubt AS d
    SET over_at = now()
    FROM offered AS o
    WHERE d.worker = o.worker AND d.kind = o.kind AND d.epoch = o.epoch AND d.over_at IS NULL
        AND (
            (o.worker, o.kind) IN (SELECT l.worker, l.kind FROM lives AS l)
            OR NOT EXISTS (
                SELECT FROM liveness.epoch AS e
                WHERE e.worker = o.worker AND e.epoch = o.epoch AND e.ended_at IS NULL
            )
        )
    RETURNING d.worker, d.kind
),
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, hash)
    SELECT
        'worker.recovered', l.worker, l.worker, $2,
        json_build_object(
            'worker', l.worker, 'incarnation', l.incarnation, 'epoch', l.epoch, 'former_incarnation', l.incarnation,
            'former_epoch', l.epoch, 'former_reason', l.kind, 'expired_at', NULL,
            'recovered_at', liveness.rfc3339(now())
        ),
        l.hash
    FROM lives AS l
    JOIN over AS v USING (worker, kind)
    ORDER BY l.worker
)
SELECT v.worker, v.kind, (SELECT pg_notify('liveness_outbox', '')) AS told FROM over AS v
