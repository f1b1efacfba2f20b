-- How much of one life went back at its end, or would have, by kind of work; what was set aside, or had no attempt left,
-- did not. The times are what the history's index goes by.
-- $1: worker  $2: epoch
SELECT h.work, count(*) AS items
FROM liveness.expiration AS x
JOIN liveness.reclaim AS h USING (worker, epoch)
WHERE x.worker = $1 AND x.epoch = $2 AND h.reclaimed_at BETWEEN x.expired_at AND coalesce(x.finished_at, now())
    AND h.outcome IS NULL
GROUP BY h.work
