-- Owners of RUNNING rows who are not up in the registry; and, if this did not come to the end, the name it came to.
-- Nearly all rows are those of the living, of whom nothing has to be known but the name. So this walks from name to name
-- along the host's index on owners, one row of each. Where there is no such index, or so many names that it takes long,
-- it stops, and whoever asked has to go through the rows behind.
-- $1: statuses that are up  $2: running  $3: seconds after which it stops
WITH RECURSIVE walked AS (
    (SELECT {owner} AS owner FROM {work_table} AS w WHERE {running $2} AND {owner_first} ORDER BY {owner} LIMIT 1)
    UNION ALL
    -- NULL: there is no other name.
    SELECT (SELECT {owner} FROM {work_table} AS w WHERE {running $2} AND {owner} > n.owner ORDER BY {owner} LIMIT 1)
    FROM walked AS n
    WHERE n.owner IS NOT NULL AND clock_timestamp() < statement_timestamp() + make_interval(secs => $3)
)
SELECT o.owner AS worker, false AS came_to
FROM (
    SELECT {walked_name} AS owner FROM walked AS n WHERE n.owner IS NOT NULL
    EXCEPT
    SELECT {registry_name} FROM {registry} AS r WHERE {registry_up $1}
) AS o
UNION ALL
SELECT {walked_last}, true FROM walked AS n HAVING bool_and(n.owner IS NOT NULL)
