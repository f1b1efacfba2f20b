-- RUNNING rows that are dated in the future, and by how much.
-- $1: running  $2: seconds that count as the present
SELECT count(*) AS items, extract(epoch FROM max({touched}) - now())::double precision AS ahead
FROM {work_table} AS w
WHERE {running $1} AND isfinite({touched}) AND {touched} > now() + make_interval(secs => $2)
