-- How much each of these names runs in one work table.
-- $1: names  $2: running
SELECT {owner} AS worker, count(*) AS items
FROM {work_table} AS w
WHERE {owner} = ANY ($1::text[]) AND {status} = $2
GROUP BY {owner}
