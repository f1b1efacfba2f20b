-- Tell of rows that leaked, each once. What was touched since it was found, or is not that life's any more, is left out.
-- $1: [{worker, epoch, incarnation, id, mark, silent_for, evidence}]  $2: running  $3: observed  $4: decided by
-- $5: word for this work
WITH {leaked},
found AS (
    SELECT
        o.worker, o.epoch, o.incarnation, {id}::text AS id, o.mark, o.evidence, l.hash, {kind} AS kind, {queue} AS queue
    FROM {work_table} AS w
    JOIN offered AS o ON {id} = o.id::{id_type}
    JOIN lives AS l ON l.worker = o.worker AND l.epoch = o.epoch
    WHERE {running $2} AND {owned_by o.worker} AND w.xmin::text = o.mark
),
fresh AS (
    SELECT f.*
    FROM found AS f
    WHERE NOT EXISTS (
        SELECT FROM liveness.leak AS k
        WHERE k.work = $5 AND k.id = f.id AND k.worker = f.worker AND k.epoch = f.epoch AND k.mark = f.mark
    )
),
kept AS (
    INSERT INTO liveness.leak (work, id, worker, epoch, mark, incarnation, reclaimed, observed, decided_by, evidence)
    SELECT $5, f.id, f.worker, f.epoch, f.mark, f.incarnation, false, $3, $4, f.evidence
    FROM fresh AS f
),
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, hash)
    SELECT
        'worker.leaked', f.worker, f.worker, $3,
        json_build_object(
            'worker', f.worker, 'incarnation', f.incarnation, 'epoch', f.epoch, 'work', $5, 'work_id', f.id,
            'kind', f.kind, 'queue', f.queue, 'left_out_for', f.evidence -> 'left_out_for',
            'leaked_at', liveness.rfc3339(now())
        ),
        f.hash
    FROM fresh AS f
    ORDER BY f.worker, f.id
)
SELECT f.worker, f.id, (SELECT pg_notify('liveness_outbox', '')) AS told FROM fresh AS f
