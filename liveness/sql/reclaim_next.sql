-- Put back the next chunk of what an earlier transaction fixed. Where the name has begun another life since, a row that
-- bears another mark than it did then may be that life's: it is left alone. As long as it has not, whoever touched the
-- row, it is still the ended life's. A row that somebody locks waits for the next pass.
-- $1 to $9 as in reclaim_first.sql  $10, $11, $12: worker, epoch and id behind which to go on
WITH {ended},
looked_at AS (
    SELECT * FROM liveness.{remainder_from}($5, $10, $11, $12, $4)
),
due AS (
    SELECT
        d.worker, d.epoch, d.id, d.mark, e.told, e.hash, e.crash,
        EXISTS (SELECT FROM liveness.epoch AS n WHERE n.worker = d.worker AND n.epoch > d.epoch) AS lived_on
    FROM looked_at AS d
    JOIN ended AS e USING (worker, epoch)
),
mine AS (
    SELECT {id}::text AS id
    FROM {work_table} AS w
    JOIN due AS d ON {id} = d.id::{id_type}
    WHERE {running $2} AND {owned_by d.worker} AND (w.xmin::text = d.mark OR NOT d.lived_on)
),
taken AS (
    SELECT {id} AS id, d.worker, d.epoch, d.told, d.hash, d.crash
    FROM {work_table} AS w
    JOIN due AS d ON {id} = d.id::{id_type}
    WHERE {running $2} AND {owned_by d.worker} AND (w.xmin::text = d.mark OR NOT d.lived_on)
    ORDER BY {id}
    {lock}
),
{moved},
{recorded},
cleared AS (
    DELETE FROM liveness.remainder AS r
    USING due AS d
    WHERE r.worker = d.worker AND r.epoch = d.epoch AND r.work = $5 AND r.id = d.id
        AND (d.id IN (SELECT v.id FROM moved AS v) OR d.id NOT IN (SELECT m.id FROM mine AS m))
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM moved) AS items, (SELECT count(*) FROM looked_at) AS looked_at,
    last.worker, last.epoch, last.id,
    -- How much went back, by reason. What the rows of a life have in common is read once for all of them.
    (
        SELECT jsonb_object_agg(r.reason, r.items)
        FROM (
            SELECT l.told::json ->> 'reason' AS reason, sum(l.items) AS items
            FROM (SELECT m.told, count(*) AS items FROM moved AS m WHERE m.outcome IS NULL GROUP BY m.told) AS l
            GROUP BY 1
        ) AS r
    )::text AS reasons
FROM (SELECT d.worker, d.epoch, d.id FROM looked_at AS d ORDER BY d.worker DESC, d.epoch DESC, d.id DESC LIMIT 1) AS last
