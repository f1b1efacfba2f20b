-- Keep what a restart needs to know of open lives: their ttl, their incarnation, and its newest hello.
-- $1: [{worker, epoch, incarnation, ttl, hello_uptime}]
UPDATE liveness.epoch AS e
SET ttl = a.ttl, incarnation = coalesce(a.incarnation, e.incarnation),
    -- Of another incarnation, it begins anew.
    hello_uptime = CASE WHEN a.incarnation <> e.incarnation THEN a.hello_uptime
        ELSE greatest(a.hello_uptime, e.hello_uptime) END
FROM jsonb_to_recordset($1::jsonb) AS a
    (worker text, epoch bigint, incarnation text, ttl double precision, hello_uptime double precision)
WHERE e.worker = a.worker AND e.epoch = a.epoch AND e.ended_at IS NULL
    AND ((e.ttl, e.incarnation) IS DISTINCT FROM (a.ttl, coalesce(a.incarnation, e.incarnation))
        OR a.hello_uptime > coalesce(e.hello_uptime, '-infinity'))
