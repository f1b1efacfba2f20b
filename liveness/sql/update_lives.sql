-- Keep what a restart needs to know of open lives: their ttl and incarnation.
-- $1: [{worker, epoch, incarnation, ttl}]
UPDATE liveness.epoch AS e
SET ttl = a.ttl, incarnation = coalesce(a.incarnation, e.incarnation)
FROM jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint, incarnation text, ttl double precision)
WHERE e.worker = a.worker AND e.epoch = a.epoch AND e.ended_at IS NULL
    AND (e.ttl, e.incarnation) IS DISTINCT FROM (a.ttl, coalesce(a.incarnation, e.incarnation))
