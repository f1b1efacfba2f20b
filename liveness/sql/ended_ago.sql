-- The last epoch of each of these names that have no open one, how long ago, in seconds, it ended, and whether it did so
-- because a new process was there, and whose it was then.
-- $1: names
SELECT DISTINCT ON (e.worker)
    e.worker,
    e.epoch,
    greatest(extract(epoch FROM clock_timestamp() - e.ended_at), 0)::double precision AS ago,
    coalesce(x.reason = 'restarted', false) AS restarted,
    x.incarnation
FROM liveness.epoch AS e
LEFT JOIN liveness.expiration AS x ON x.worker = e.worker AND x.epoch = e.epoch
WHERE e.worker = ANY ($1::text[])
    AND NOT EXISTS (SELECT FROM liveness.epoch AS o WHERE o.worker = e.worker AND o.ended_at IS NULL)
ORDER BY e.worker, e.epoch DESC
