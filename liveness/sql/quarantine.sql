-- Set work aside that keeps killing its workers: the status that the operator chose, no owner, and what it did. Each of
-- its deaths is put down to it, but for those whose reclaim is just being finished: nobody waits for that. What somebody
-- locks is left to the reclaim: it goes back once more.
-- $1: [{worker, epoch}]  $2: running  $3: quarantine status  $4: [{id, worker, epoch, reclaim_count, error, data}]
-- $5: word for this work  $6: seconds in which crashes count
WITH {ended},
guilty AS (
    SELECT *
    FROM jsonb_to_recordset($4::jsonb) AS g (
        id text, worker text, epoch bigint, reclaim_count integer, error text, data jsonb
    )
),
taken AS (
    SELECT {id} AS id, g.error, g.data, g.reclaim_count, e.worker, e.epoch, e.told, e.hash
    FROM {work_table} AS w
    JOIN guilty AS g ON {id} = g.id::{id_type}
    JOIN ended AS e ON e.worker = g.worker AND e.epoch = g.epoch AND {owned_by e.worker}
    WHERE {of_that_life}
    ORDER BY {id}
    FOR UPDATE OF w SKIP LOCKED
),
moved AS (
    UPDATE {work_table} AS w
    SET {set_aside}
    FROM taken AS t
    WHERE {id} = t.id AND {running $2} AND {owned_by t.worker}
    RETURNING {id}::text AS id, t.data, t.reclaim_count, t.worker, t.epoch, t.told, t.hash
),
recorded AS (
    INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count, crash, outcome)
    SELECT $5, m.id, m.worker, m.epoch, m.reclaim_count, true, 'quarantined'
    FROM moved AS m
),
deaths AS (
    SELECT m.id, m.worker, m.epoch FROM moved AS m
    UNION
    SELECT m.id, r.worker, r.epoch
    FROM moved AS m
    JOIN liveness.reclaim AS r ON r.id = m.id
    WHERE r.work = $5 AND r.crash AND NOT r.observed AND r.reclaimed_at > now() - make_interval(secs => $6)
),
unexplained AS (
    SELECT x.worker, x.epoch, d.id
    FROM liveness.expiration AS x
    JOIN deaths AS d USING (worker, epoch)
    WHERE NOT coalesce(x.killers ? $5, false)
    FOR NO KEY UPDATE OF x SKIP LOCKED
),
explained AS (
    UPDATE liveness.expiration AS x
    SET killers = coalesce(x.killers, '{}') || jsonb_build_object($5, d.id)
    FROM unexplained AS d
    WHERE x.worker = d.worker AND x.epoch = d.epoch AND NOT coalesce(x.killers ? $5, false)
),
news AS (
    INSERT INTO liveness.outbox (type, subject, worker, told, hash)
    SELECT $5 || '.quarantined', m.id, m.worker, (m.told::jsonb || m.data)::json, m.hash
    FROM moved AS m
)
SELECT m.id FROM moved AS m
