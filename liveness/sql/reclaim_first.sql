-- Fix which rows of one work table were the ended lives', by this statement's one snapshot, and put the first of them
-- back. The others (beyond the limit, or locked by somebody) are remembered with the mark they bear now.
-- What was fixed for a former life of the name, and bears the same mark still, is left to that life's reclaim.
-- Only RUNNING rows; what finished or changed hands since the snapshot fails the repeated conditions and stays.
-- What later parts need of the expiration travels with the rows, and NOT IN is hashed: a join back would be planned for
-- the handful of rows that a CTE is taken to have, and take quadratic time for thousands.
-- $1: [{worker, epoch}]  $2: running  $3: waiting  $4: limit  $5: word for this work  $6: key of its id in events
-- $7: observed
WITH ended AS (
    SELECT
        x.worker, x.epoch, x.incarnation, x.reason, x.untouched_for,
        liveness.rfc3339(x.last_heartbeat_at) AS last_heartbeat_at, liveness.rfc3339(x.lapsed_at) AS lapsed_at
    FROM liveness.expiration AS x
    JOIN jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint) USING (worker, epoch)
),
mine AS (
    SELECT {id} AS id, w.xmin::text AS mark, e.worker, e.epoch
    FROM {work_table} AS w
    JOIN ended AS e ON {owner} = e.worker
    WHERE {status} = $2
        AND (e.untouched_for IS NULL OR {touched} < now() - make_interval(secs => e.untouched_for))
        AND NOT EXISTS (
            SELECT FROM liveness.remainder AS d
            WHERE d.worker = e.worker AND d.work = $5 AND d.id = {id}::text AND d.mark = w.xmin::text
        )
),
taken AS (
    SELECT {id} AS id, e.worker, e.epoch, e.incarnation, e.reason, e.last_heartbeat_at, e.lapsed_at
    FROM {work_table} AS w
    JOIN ended AS e ON {owner} = e.worker
    WHERE {status} = $2
        AND (e.untouched_for IS NULL OR {touched} < now() - make_interval(secs => e.untouched_for))
        AND NOT EXISTS (
            SELECT FROM liveness.remainder AS d
            WHERE d.worker = e.worker AND d.work = $5 AND d.id = {id}::text AND d.mark = w.xmin::text
        )
    ORDER BY {id}
    LIMIT $4
    {lock}
),
{moved},
{recorded},
kept AS (
    INSERT INTO liveness.remainder (worker, epoch, work, id, mark)
    SELECT m.worker, m.epoch, $5, m.id::text, m.mark
    FROM mine AS m
    WHERE m.id::text NOT IN (SELECT v.id FROM moved AS v)
    RETURNING 1
)
SELECT m.worker, m.epoch, count(*) AS items FROM moved AS m GROUP BY m.worker, m.epoch
