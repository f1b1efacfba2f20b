-- These workers are suspected, or wedged: note it, once, and tell it. Only of lives that go on. Whoever ends one locks its
-- row, and is not met: then it is over, or the next pass tells.
-- $1: [{worker, epoch, kind, incarnation, cause, ttl, silent_for, progress, running, still_for}]  $2: observed
WITH offered AS (
    SELECT *
    FROM jsonb_to_recordset($1::jsonb) AS o (
        worker text, epoch bigint, kind text, incarnation text, cause text, ttl double precision,
        silent_for double precision, progress bigint, running bigint, still_for double precision
    )
),
lives AS (
    SELECT
        o.worker, o.kind, o.epoch, o.progress, e.hash,
        CASE o.kind
            WHEN 'suspected' THEN json_build_object(
                'worker', o.worker, 'incarnation', o.incarnation, 'epoch', o.epoch, 'cause', o.cause, 'ttl', o.ttl,
                'last_heartbeat_at', liveness.rfc3339(now() - make_interval(secs => o.silent_for)),
                'suspected_at', liveness.rfc3339(now())
            )
            ELSE json_build_object(
                'worker', o.worker, 'incarnation', o.incarnation, 'epoch', o.epoch, 'progress', o.progress,
                'running', o.running, 'still_since', liveness.rfc3339(now() - make_interval(secs => o.still_for)),
                'wedged_at', liveness.rfc3339(now())
            )
        END AS told
    FROM offered AS o
    JOIN liveness.epoch AS e USING (worker, epoch)
    WHERE e.ended_at IS NULL
    ORDER BY e.worker
    FOR KEY SHARE OF e SKIP LOCKED
),
raised AS (
    INSERT INTO liveness.doubt AS d (worker, kind, epoch, progress, told, hash)
    SELECT l.worker, l.kind, l.epoch, l.progress, l.told, l.hash
    FROM lives AS l
    ON CONFLICT (worker, kind) DO UPDATE
    SET epoch = excluded.epoch, progress = excluded.progress, told = excluded.told, hash = excluded.hash,
        raised_at = now(), over_at = NULL
    WHERE d.over_at IS NOT NULL OR d.epoch <> excluded.epoch
    RETURNING d.worker, d.kind, d.told, d.hash
),
-- What is told travels with the row: a join back would be planned for a handful, and take quadratic time for thousands.
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, hash)
    SELECT 'worker.' || r.kind, r.worker, r.worker, $2, r.told, r.hash
    FROM raised AS r
    ORDER BY r.worker
)
-- Wakes the relay when it is committed.
SELECT l.worker, l.kind, (SELECT pg_notify('liveness_outbox', '')) AS told FROM lives AS l
