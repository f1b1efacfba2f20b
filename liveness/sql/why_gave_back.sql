-- How much of some lives of one name went back at their ends, or would have, by kind of work. The times are what the
-- history's index goes by.
-- $1: name  $2: epochs
SELECT h.epoch, h.work, count(*) AS items
FROM liveness.expiration AS x
CROSS JOIN LATERAL (
    SELECT r.epoch, r.work
    FROM liveness.reclaim AS r
    WHERE r.reclaimed_at BETWEEN x.expired_at AND coalesce(x.finished_at, now())
        AND r.worker = x.worker AND r.epoch = x.epoch
) AS h
WHERE x.worker = $1 AND x.epoch = ANY ($2::bigint[])
GROUP BY h.epoch, h.work
