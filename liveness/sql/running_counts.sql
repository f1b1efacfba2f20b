-- How much each of these names runs in one work table.
-- $1: names  $2: running
SELECT {owner_name} AS worker, count(*) AS items
FROM {work_table} AS w
WHERE {owned_by_any $1::text[]} AND {running $2}
GROUP BY {owner}
