offered AS (
    SELECT *
    FROM jsonb_to_recordset($1::jsonb) AS o (
        worker text, epoch bigint, incarnation text, id text, mark text, silent_for double precision, evidence jsonb
    )
),
-- Whoever ends one of these lives locks its row, and takes all that it held.
lives AS (
    SELECT e.worker, e.epoch, e.hash
    FROM liveness.epoch AS e
    WHERE (e.worker, e.epoch) IN (SELECT o.worker, o.epoch FROM offered AS o) AND e.ended_at IS NULL
    ORDER BY e.worker
    FOR KEY SHARE SKIP LOCKED
)
