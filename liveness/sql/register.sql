-- Give workers that beat and that the host's registry does not know a row of their own.
-- $1: names  $2: online
INSERT INTO {registry} ({register_columns})
SELECT {register_values}
FROM unnest($1::text[]) AS a (worker)
WHERE NOT EXISTS (SELECT FROM {registry} AS r WHERE {registry_named a.worker})
