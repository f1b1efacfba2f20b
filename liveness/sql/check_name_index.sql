-- Whether an index leads from a name to its rows in the registry. Only planned, with all other ways turned off.
-- $1: a name
SELECT 1 FROM {registry} AS r WHERE {registry_named $1}
