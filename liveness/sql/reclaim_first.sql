-- Fix which rows of one work table were the ended lives', by this statement's one snapshot, and put the first of them
-- back. The others (beyond the limit, or locked by somebody) are remembered with the mark they bear now.
-- What was fixed for a former life of the name, and bears the same mark still, is left to that life's reclaim.
-- Only RUNNING rows; what finished or changed hands since the snapshot fails the repeated conditions and stays.
-- What later parts need of the expiration travels with the rows, and NOT IN is hashed: a join back would be planned for
-- the handful of rows that a CTE is taken to have, and take quadratic time for thousands.
-- $1: [{worker, epoch}]  $2: running  $3: waiting  $4: limit  $5: word for this work  $6: key of its id in events
-- $7: observed  $8: seconds in which crashes count  $9: status of what has no attempt left, or NULL
WITH {ended},
mine AS (
    SELECT {id} AS id, w.xmin::text AS mark, e.worker, e.epoch
    FROM {work_table} AS w
    {join_owners ended}
    WHERE {of_that_life}
),
taken AS (
    SELECT {id} AS id, e.worker, e.epoch, e.told, e.hash, e.crash
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
    RETURNING worker, epoch, id
),
counted_later AS (
    SELECT
        k.worker, k.epoch,
        1 + (
            SELECT count(*) FROM liveness.reclaim AS h
            WHERE h.work = $5 AND h.id = k.id AND h.crash AND h.reclaimed_at > now() - make_interval(secs => $8)
        ) AS crash_count
    FROM kept AS k
    JOIN ended AS e USING (worker, epoch)
    WHERE e.crash
)
-- Who held what, how much of it went back, and the most crashes that anything of it has behind it now.
SELECT m.worker, m.epoch, count(*) FILTER (WHERE m.went_back) AS items, max(m.crash_count) AS crashes
FROM (
    SELECT c.worker, c.epoch, c.outcome IS NULL AS went_back, c.crash_count FROM counted AS c
    UNION ALL
    SELECT k.worker, k.epoch, false, k.crash_count FROM counted_later AS k
) AS m
GROUP BY m.worker, m.epoch
