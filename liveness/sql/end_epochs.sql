-- End epochs, each at most once, and write down why. The epoch's row is the lock.
-- A beat that somebody else recorded in the registry within spare_within seconds spares the life; one further in the
-- future than that is a broken clock and spares nobody.
-- A name that we never heard must still be up in the registry, or still not, as the sweep found it (must_be_up).
-- $1: [{worker, epoch, incarnation, reason, ttl, silent_for, overdue, spare_within, must_be_up, untouched_for, crash,
--      evidence}]
-- $2: decided by  $3: observed  $4: statuses that are up
WITH offered AS (
    SELECT *
    FROM jsonb_to_recordset($1::jsonb) AS o (
        worker text, epoch bigint, incarnation text, reason text, ttl double precision, silent_for double precision,
        overdue double precision, spare_within double precision, must_be_up boolean, untouched_for double precision,
        crash boolean, evidence jsonb
    )
),
still_open AS (
    SELECT e.worker, e.epoch
    FROM liveness.epoch AS e
    JOIN offered AS o USING (worker, epoch)
    WHERE e.ended_at IS NULL
        AND (
            o.must_be_up IS NULL
            OR o.must_be_up = EXISTS (
                SELECT FROM {registry} AS r
                WHERE {registry_named o.worker} AND {registry_up $4}
            )
        )
),
locked AS (
    SELECT e.worker, e.epoch, e.incarnation
    FROM liveness.epoch AS e
    JOIN still_open AS o USING (worker, epoch)
    WHERE e.ended_at IS NULL
    ORDER BY e.worker
    -- Not waiting: one that somebody holds must not hold up the others.
    FOR UPDATE OF e SKIP LOCKED
),
heard AS (
    SELECT o.worker, greatest(extract(epoch FROM now() - max({registry_heartbeat})), 0)::double precision AS ago
    FROM offered AS o
    JOIN {registry} AS r ON {registry_named o.worker}
    WHERE {registry_heartbeat} > now() - make_interval(secs => o.spare_within)
        AND {registry_heartbeat} <= now() + make_interval(secs => o.spare_within)
    GROUP BY o.worker
),
-- One pass over the registry however many names: it needs no index of the host's.
registered AS MATERIALIZED (
    SELECT {registry_name} AS worker, max({registry_heartbeat}) AS beat_at
    FROM {registry} AS r
    WHERE {registry_name} IN (SELECT o.worker FROM offered AS o WHERE o.silent_for IS NULL)
    GROUP BY {registry_key}
),
ended AS (
    UPDATE liveness.epoch AS e
    SET ended_at = now()
    FROM locked AS l
    WHERE e.worker = l.worker AND e.epoch = l.epoch
        AND NOT EXISTS (SELECT FROM heard AS h WHERE h.worker = l.worker)
    RETURNING e.worker, e.epoch, e.incarnation
),
written AS (
    INSERT INTO liveness.expiration (
        worker, epoch, incarnation, reason, ttl, last_heartbeat_at, lapsed_at, untouched_for, observed, decided_by,
        crash, evidence
    )
    SELECT
        d.worker, d.epoch,
        -- What a restart ends is the former process; the epoch may name the next one already.
        CASE WHEN o.reason = 'restarted' THEN o.incarnation ELSE coalesce(o.incarnation, d.incarnation) END, o.reason, o.ttl,
        -- Of a life that we never heard, the registry may know a last beat.
        coalesce(
            now() - make_interval(secs => o.silent_for),
            (SELECT b.beat_at FROM registered AS b WHERE b.worker = d.worker)
        ),
        now() - make_interval(secs => o.overdue), o.untouched_for, $3, $2,
        o.crash AND NOT $3, o.evidence
    FROM ended AS d
    JOIN offered AS o USING (worker, epoch)
    RETURNING *
),
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, hash)
    SELECT
        CASE w.reason WHEN 'released' THEN 'worker.released' ELSE 'worker.expired' END, w.worker, w.worker, w.observed,
        json_build_object(
            'worker', w.worker, 'incarnation', w.incarnation, 'epoch', w.epoch, 'reason', w.reason, 'ttl', w.ttl,
            'last_heartbeat_at', liveness.rfc3339(w.last_heartbeat_at), 'lapsed_at', liveness.rfc3339(w.lapsed_at),
            'expired_at', liveness.rfc3339(w.expired_at)
        ),
        (SELECT e.hash FROM liveness.epoch AS e WHERE e.worker = w.worker AND e.epoch = w.epoch)
    FROM written AS w
    -- An orphan's owner was told of when it ended, or was never known.
    WHERE w.reason <> 'orphaned'
)
SELECT
    o.worker, o.epoch, w.worker IS NOT NULL AS ended, h.ago AS heard_ago,
    l.worker IS NULL AND s.worker IS NOT NULL AS held
FROM offered AS o
LEFT JOIN locked AS l USING (worker, epoch)
LEFT JOIN still_open AS s USING (worker, epoch)
LEFT JOIN written AS w USING (worker, epoch)
LEFT JOIN heard AS h ON h.worker = l.worker
