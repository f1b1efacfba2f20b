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
    SELECT o.*, e.hash
    FROM offered AS o
    JOIN liveness.epoch AS e USING (worker, epoch)
    WHERE e.ended_at IS NULL
    ORDER BY e.worker
    FOR KEY SHARE OF e SKIP LOCKED
),
raised AS (
    INSERT INTO liveness.doubt AS d (worker, kind, epoch, progress, hash)
    SELECT l.worker, l.kind, l.epoch, l.progress, l.hash
    FROM lives AS l
    ON CONFLICT (worker, kind) DO UPDATE
    SET epoch = excluded.epoch, progress = excluded.progress, hash = excluded.hash, raised_at = now(), over_at = NULL
    WHERE d.over_at IS NOT NULL OR d.epoch <> excluded.epoch
    RETURNING d.worker, d.kind
),
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, hash)
    SELECT
        'worker.' || l.kind, l.worker, l.worker, $2,
        CASE l.kind
            WHEN 'suspected' THEN json_build_object(
                'worker', l.worker, 'incarnation', l.incarnation, 'epoch', l.epoch, 'cause', l.cause, 'ttl', l.ttl,
                'last_heartbeat_at', liveness.rfc3339(now() - make_interval(secs => l.silent_for)),
                'suspected_at', liveness.rfc3339(now())
            )
            ELSE json_build_object(
                'worker', l.worker, 'incarnation', l.incarnation, 'epoch', l.epoch, 'progress', l.progress,
                'running', l.running, 'still_since', liveness.rfc3339(now() - make_interval(secs => l.still_for)),
                'wedged_at', liveness.rfc3339(now())
            )
        END,
        l.hash
    FROM lives AS l
    JOIN raised AS r USING (worker, kind)
    ORDER BY l.worker
)
-- Wakes the relay when it is committed.
SELECT l.worker, l.kind, (SELECT pg_notify('liveness_outbox', '')) AS told FROM lives AS l
