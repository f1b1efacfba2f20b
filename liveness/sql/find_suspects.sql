-- What lives held of one work table when they crashed, most suspect first: all that has its crash budget behind it, and
-- of each life the first few others. A death that was put down to another piece of this work counts against nothing else.
-- Read before anything goes back. It is asked rarely, and so it may cost something.
-- $1: [{worker, epoch}]  $2: running  $3: crash budget  $4: how many others of each life  $5: word for this work
-- $6: seconds in which crashes count  $7: rows at most
WITH {ended},
held AS (
    SELECT {id}::text AS id, {kind} AS kind, {queue} AS queue, e.worker, e.epoch
    FROM {work_table} AS w
    {join_owners ended}
    WHERE e.crash AND {of_that_life}
),
counted AS (
    SELECT h.*, 1 + p.reclaims AS reclaim_count, 1 + p.crashes AS crash_count
    FROM held AS h
    CROSS JOIN LATERAL (
        SELECT
            count(*) AS reclaims,
            count(*) FILTER (
                WHERE r.crash AND r.reclaimed_at > now() - make_interval(secs => $6)
                    AND NOT coalesce(x.killers ? $5, false)
            ) AS crashes
        FROM liveness.reclaim AS r
        LEFT JOIN liveness.expiration AS x USING (worker, epoch)
        WHERE r.work = $5 AND r.id = h.id AND NOT r.observed
    ) AS p
),
placed AS (
    SELECT
        c.*,
        count(*) OVER (PARTITION BY c.worker, c.epoch) AS suspects,
        row_number() OVER (PARTITION BY c.worker, c.epoch ORDER BY c.crash_count DESC, c.id) AS place
    FROM counted AS c
)
SELECT p.id, p.kind, p.queue, p.worker, p.epoch, p.reclaim_count, p.crash_count, p.suspects
FROM placed AS p
WHERE p.crash_count >= $3 OR p.place <= $4
ORDER BY p.crash_count DESC, p.worker, p.epoch, p.place
LIMIT $7
