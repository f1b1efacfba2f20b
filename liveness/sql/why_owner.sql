-- What the registry says of one name.
-- $1: name  $2: statuses that are up
SELECT
    count(*) AS registered,
    coalesce(bool_or({registry_up $2}), false) AS up,
    max({registry_heartbeat}) FILTER (WHERE isfinite({registry_heartbeat}))::timestamptz AS beat_at
FROM {registry} AS r
WHERE {registry_named $1}
