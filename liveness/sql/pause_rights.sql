-- Whether there is a pause to be had, and whether our role may have it; none, without a schema.
SELECT
    current_user::text AS role, c.oid IS NOT NULL AS there,
    has_schema_privilege(n.oid, 'USAGE')
        AND has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'UPDATE') AS may
FROM pg_namespace AS n
LEFT JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relname = 'pause' AND c.relkind = 'r'
WHERE n.nspname = 'liveness'
