-- Incarnations that a restart ended, of names that live: a beat of one of them is a beat of the past. The newest few of
-- each name, and no older than a day: what a worker sent longer ago is not under way any more. A name whose last life
-- was ended by a restart lives, too: whoever ended it may have died before the next one had its epoch.
-- $1: names, or NULL for all
SELECT o.worker, f.incarnation, f.epoch
FROM (
    SELECT e.worker FROM liveness.epoch AS e WHERE e.ended_at IS NULL AND ($1::text[] IS NULL OR e.worker = ANY ($1))
    UNION
    SELECT x.worker
    FROM liveness.expiration AS x
    -- Nobody recovered from it yet, and it was a moment ago: an index has those.
    WHERE x.recovered_at IS NULL AND x.reason = 'restarted' AND x.expired_at > now() - interval '1 day'
        AND ($1::text[] IS NULL OR x.worker = ANY ($1))
        AND NOT EXISTS (SELECT FROM liveness.epoch AS e WHERE e.worker = x.worker AND e.epoch > x.epoch)
) AS o
CROSS JOIN LATERAL (
    SELECT x.incarnation, x.epoch
    FROM liveness.expiration AS x
    WHERE x.worker = o.worker AND x.reason = 'restarted' AND x.incarnation IS NOT NULL
        AND x.expired_at > now() - interval '1 day'
    ORDER BY x.epoch DESC
    LIMIT 8
) AS f
ORDER BY o.worker, f.epoch
