-- Forget the oldest of the history, as far as they are old enough. They are numbered as they came, so that nothing is
-- looked at but so many rows.
-- $1: seconds  $2: how many at most
WITH oldest AS MATERIALIZED (
    SELECT r.seq, r.reclaimed_at FROM liveness.reclaim AS r ORDER BY r.seq LIMIT $2
),
gone AS (
    DELETE FROM liveness.reclaim AS r
    WHERE r.seq = ANY (ARRAY(SELECT o.seq FROM oldest AS o WHERE o.reclaimed_at < now() - make_interval(secs => $1)))
    RETURNING 1
),
noted AS (
    UPDATE liveness.retention
    SET forgotten_before = greatest(forgotten_before, now() - make_interval(secs => $1))
    WHERE EXISTS (SELECT FROM gone)
)
SELECT count(*) AS rows FROM gone
