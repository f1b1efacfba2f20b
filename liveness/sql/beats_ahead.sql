-- Rows of the registry whose last beat is dated in the future, and by how much.
-- $1: seconds that count as the present
SELECT count(*) AS items, extract(epoch FROM max({registry_heartbeat}) - now())::double precision AS ahead
FROM {registry} AS r
WHERE isfinite({registry_heartbeat}) AND {registry_heartbeat} > now() + make_interval(secs => $1)
