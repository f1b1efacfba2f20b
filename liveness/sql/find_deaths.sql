-- The crashes that count against pieces of work, newest first, each with how much of that work it ended at once.
-- $1: ids  $2: word for this work  $3: seconds in which crashes count  $4: how many of each at most
WITH listed AS MATERIALIZED (
    SELECT a.id, h.worker, h.epoch, h.reclaimed_at
    FROM unnest($1::text[]) AS a (id)
    CROSS JOIN LATERAL (
        SELECT r.worker, r.epoch, r.reclaimed_at
        FROM liveness.reclaim AS r
        JOIN liveness.expiration AS x USING (worker, epoch)
        WHERE r.work = $2 AND r.id = a.id AND r.crash AND NOT r.observed
            AND r.reclaimed_at > now() - make_interval(secs => $3) AND NOT coalesce(x.killers ? $2, false)
        ORDER BY r.reclaimed_at DESC
        LIMIT $4
    ) AS h
),
-- Once for all that died together.
sized AS MATERIALIZED (
    SELECT
        d.worker, d.epoch, x.reason, liveness.rfc3339(x.expired_at) AS at,
        (
            -- The times are what the history's index goes by.
            SELECT count(*) FROM liveness.reclaim AS s
            WHERE s.work = $2 AND s.worker = d.worker AND s.epoch = d.epoch AND s.crash
                AND s.reclaimed_at BETWEEN x.expired_at AND coalesce(x.finished_at, now())
        ) AS suspects
    FROM (SELECT DISTINCT l.worker, l.epoch FROM listed AS l) AS d
    JOIN liveness.expiration AS x USING (worker, epoch)
)
SELECT l.id, s.worker, s.epoch, s.reason, s.at, s.suspects
FROM listed AS l
JOIN sized AS s USING (worker, epoch)
ORDER BY l.id, l.reclaimed_at DESC
