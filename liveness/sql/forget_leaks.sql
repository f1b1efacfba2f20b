-- Forget the oldest records of rows that leaked. Of one that is RUNNING still, and left out still, it is told anew.
-- $1: seconds  $2: how many at most
WITH gone AS (
    DELETE FROM liveness.leak
    WHERE ctid = ANY (
        ARRAY(
            SELECT l.ctid FROM liveness.leak AS l
            WHERE l.found_at < now() - make_interval(secs => $1)
            ORDER BY l.found_at
            LIMIT $2
            FOR UPDATE SKIP LOCKED
        )
    )
    RETURNING 1
),
noted AS (
    UPDATE liveness.retention
    SET forgotten_before = greatest(forgotten_before, now() - make_interval(secs => $1))
    WHERE EXISTS (SELECT FROM gone)
)
SELECT count(*) AS rows FROM gone
