-- How much of one life's work was put back so far; what was set aside, or had no attempt left, was not. The times are what
-- the history's index goes by.
-- $1: worker  $2: epoch
SELECT count(*) AS items
FROM liveness.expiration AS x
JOIN liveness.reclaim AS h USING (worker, epoch)
WHERE x.worker = $1 AND x.epoch = $2 AND NOT h.observed AND h.outcome IS NULL
    AND h.reclaimed_at BETWEEN x.expired_at AND coalesce(x.finished_at, now())
