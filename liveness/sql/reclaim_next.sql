-- Put back the next chunk of what an earlier transaction fixed. A row that bears another mark than it did then was
-- touched since, perhaps by the name's next life: it is left alone. A row that somebody locks waits for the next pass.
-- $1 to $7 as in reclaim_first.sql  $8, $9, $10: worker, epoch and id behind which to go on
WITH ended AS (
    SELECT x.*
    FROM liveness.expiration AS x
    JOIN jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint) USING (worker, epoch)
),
due AS (
    SELECT d.*
    FROM liveness.remainder AS d
    JOIN ended AS e USING (worker, epoch)
    WHERE d.work = $5 AND (d.worker, d.epoch, d.id) > ($8::text, $9::bigint, $10::text)
    ORDER BY d.worker, d.epoch, d.id
    LIMIT $4
),
mine AS (
    SELECT {id}::text AS id, d.worker, d.epoch
    FROM {work_table} AS w
    JOIN due AS d ON {id} = d.id::{id_type}
    WHERE {status} = $2 AND {owner} = d.worker AND w.xmin::text = d.mark
),
taken AS (
    SELECT {id} AS id, d.worker, d.epoch
    FROM {work_table} AS w
    JOIN due AS d ON {id} = d.id::{id_type}
    WHERE {status} = $2 AND {owner} = d.worker AND w.xmin::text = d.mark
    ORDER BY {id}
    {lock}
),
{moved},
{recorded},
cleared AS (
    DELETE FROM liveness.remainder AS r
    USING due AS d
    WHERE r.worker = d.worker AND r.epoch = d.epoch AND r.work = d.work AND r.id = d.id
        AND (
            EXISTS (SELECT FROM moved AS v WHERE v.id = d.id AND v.epoch = d.epoch)
            OR NOT EXISTS (SELECT FROM mine AS m WHERE m.id = d.id AND m.epoch = d.epoch)
        )
    RETURNING 1
)
SELECT
    (SELECT count(*) FROM moved) AS items, (SELECT count(*) FROM due) AS looked_at, (SELECT count(*) FROM cleared) AS cleared,
    last.worker, last.epoch, last.id
FROM (SELECT d.worker, d.epoch, d.id FROM due AS d ORDER BY d.worker DESC, d.epoch DESC, d.id DESC LIMIT 1) AS last
