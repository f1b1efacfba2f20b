-- How many rows of the registry these names have that are up: how every statement that marks a worker finds it.
-- $1: names  $2: statuses that are up
SELECT count(*) FROM {registry} AS r
WHERE {registry_named_any $1::text[]} AND {registry_up $2}
