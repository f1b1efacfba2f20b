-- How many rows of the registry these names have that are up: how every statement that marks a worker finds it.
-- $1: names  $2: statuses that are up
SELECT count(*) FROM {registry} AS r
WHERE {registry_name} = ANY ($1::text[]) AND {registry_status}::text = ANY ($2::text[])
