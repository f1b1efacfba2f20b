-- Which of these names does the host know? They are granted first when there are many: a flood of invented names must
-- not keep a real one waiting.
-- $1: names  $2: running statuses, one for each work table
SELECT a.worker
FROM unnest($1::text[]) AS a (worker)
WHERE EXISTS (SELECT FROM {registry} AS r WHERE {registry_named a.worker}) {or_holds_work}
