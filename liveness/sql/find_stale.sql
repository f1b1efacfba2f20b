-- Names that are up in the registry though nobody recorded a beat of them for a while, with the ttl of their last life.
-- $1: statuses that are up  $2: seconds  $3: whether observed reclaims count (mode observe: the row stays up)
SELECT {registry_name} AS worker, max({registry_heartbeat}) AS last_heartbeat_at,
    -- An infinite one cannot be subtracted before Postgres 17.
    CASE WHEN isfinite(max({registry_heartbeat}))
        THEN extract(epoch FROM now() - max({registry_heartbeat}))::double precision
    END AS silent_for,
    (SELECT p.ttl FROM liveness.epoch AS p WHERE p.worker = {registry_name} ORDER BY p.epoch DESC LIMIT 1) AS ttl
FROM {registry} AS r
WHERE {registry_key} IS NOT NULL
GROUP BY {registry_key}
HAVING bool_or({registry_up $1})
    AND coalesce(max({registry_heartbeat}) < now() - make_interval(secs => $2), true)
    -- A reclaim that is not finished has still to mark it.
    AND NOT EXISTS (
        SELECT FROM liveness.expiration AS x WHERE x.worker = {registry_name} AND x.finished_at IS NULL
    )
    AND NOT (
        $3 AND EXISTS (
            SELECT FROM liveness.expiration AS x
            WHERE x.worker = {registry_name} AND x.observed
                AND x.expired_at > coalesce(max({registry_heartbeat}), '-infinity')
        )
    )
