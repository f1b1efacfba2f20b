-- These names were heard again after an epoch of theirs had ended: note it, once, and tell it.
-- $1: [{worker, epoch}], the epochs they live under now
WITH heard AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint)
),
back AS (
    UPDATE liveness.expiration AS x
    SET recovered_at = now()
    FROM heard AS h
    WHERE x.worker = h.worker AND x.epoch < h.epoch AND x.recovered_at IS NULL
    RETURNING x.worker, x.epoch, x.incarnation, x.reason, x.expired_at, x.observed, h.epoch AS new_epoch
),
newest AS (
    SELECT DISTINCT ON (b.worker) b.*
    FROM back AS b
    ORDER BY b.worker, b.epoch DESC
),
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, hash)
    SELECT
        'worker.recovered', n.worker, n.worker, n.observed,
        json_build_object(
            'worker', n.worker, 'incarnation', e.incarnation, 'epoch', n.new_epoch, 'former_incarnation', n.incarnation,
            'former_epoch', n.epoch, 'former_reason', n.reason, 'expired_at', liveness.rfc3339(n.expired_at),
            'recovered_at', liveness.rfc3339(now())
        ),
        e.hash
    FROM newest AS n
    JOIN liveness.epoch AS e ON e.worker = n.worker AND e.epoch = n.new_epoch
    -- A worker that was released and starts again, or was started again, has recovered from nothing.
    WHERE n.reason NOT IN ('released', 'restarted')
    ORDER BY n.worker
)
SELECT worker, epoch, incarnation, reason, new_epoch, observed FROM newest
