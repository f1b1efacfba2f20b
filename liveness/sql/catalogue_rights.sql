-- What our role may do with a table of the host's.
-- $1: schema  $2: name
SELECT
    current_user::text AS role,
    has_schema_privilege(n.oid, 'USAGE') AS "USAGE",
    has_table_privilege(c.oid, 'SELECT') AS "SELECT",
    has_table_privilege(c.oid, 'UPDATE') AS "UPDATE",
    has_table_privilege(c.oid, 'INSERT') AS "INSERT"
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2
