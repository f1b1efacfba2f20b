-- Fix which rows of one work table were the ended lives', by this statement's one snapshot, and put the first of them
-- back. The others (beyond the limit, or locked by somebody) are remembered with the mark they bear now.
-- What was fixed for a former life of the name, and bears the same mark still, is left to that life's reclaim.
-- Only RUNNING rows; what finished or changed hands since the snapshot fails the repeated conditions and stays.
-- What later parts need of the expiration travels with the rows, and NOT IN is hashed: a join back would be planned for
-- the handful of rows that a CTE is taken to have, and take quadratic time for thousands.
-- $1: [{worker, epoch}]  $2: running  $3: waiting  $4: limit  $5: word for this work  $6: key of its id in events
-- $7: observed
WITH {ended},
mine AS (
    SELECT {id} AS id, w.xmin::text AS mark, e.worker, e.epoch
    FROM {work_table} AS w
    {join_owners ended}
    WHERE {of_that_life}
),
taken AS (
    SELECT {id} AS id, e.worker, e.epoch, e.told, e.hash
    FROM {work_table} AS w
    {join_owners ended}
    WHERE {of_that_life}
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
