-- Put rows back that leaked: single rows of lives that go on. A row that was touched since it was found (another mark)
-- stays, and so does one that somebody locks. Its history and its news are those of any reclaim; why it went back is in
-- liveness.leak, written by the same transaction.
-- $1: [{worker, epoch, incarnation, id, mark, silent_for, evidence}]  $2: running  $3: waiting  $4: limit
-- $5: word for this work  $6: key of its id in events  $7: observed  $8, $9: as in reclaim_first.sql  $10: decided by
WITH {leaked},
taken AS (
    SELECT
        {id} AS id, o.worker, o.epoch,
        json_build_object(
            'former_worker', o.worker, 'incarnation', o.incarnation, 'epoch', o.epoch, 'reason', 'leaked',
            'last_heartbeat_at', liveness.rfc3339(now() - make_interval(secs => o.silent_for)), 'lapsed_at', NULL,
            'reclaimed_at', liveness.rfc3339(now())
        )::text AS told,
        l.hash,
        -- Nobody died of it.
        false AS crash
    FROM {work_table} AS w
    JOIN offered AS o ON {id} = o.id::{id_type}
    JOIN lives AS l ON l.worker = o.worker AND l.epoch = o.epoch
    WHERE {running $2} AND {owned_by o.worker} AND w.xmin::text = o.mark
    ORDER BY {id}
    LIMIT $4
    {lock}
),
{moved},
{recorded},
-- Twice NOT IN, which is hashed: a join back would be planned for a handful, and take quadratic time for thousands.
left_alone AS (
    SELECT o.worker, o.id FROM offered AS o WHERE (o.worker, o.id) NOT IN (SELECT m.worker, m.id FROM moved AS m)
),
kept AS (
    INSERT INTO liveness.leak (work, id, worker, epoch, mark, incarnation, reclaimed, decided_by, evidence)
    SELECT $5, o.id, o.worker, o.epoch, o.mark, o.incarnation, true, $10, o.evidence
    FROM offered AS o
    WHERE (o.worker, o.id) NOT IN (SELECT a.worker, a.id FROM left_alone AS a)
    -- It was told of before the setting was changed.
    ON CONFLICT (work, id, worker, epoch, mark) DO UPDATE
    SET reclaimed = true, found_at = now(), decided_by = excluded.decided_by,
        transaction_id = excluded.transaction_id, evidence = excluded.evidence
)
SELECT m.worker, m.id, (SELECT pg_notify('liveness_outbox', '')) AS told FROM moved AS m
