-- What our role is, and what it may not do with our own tables, of which it needs all.
-- $1: what it needs
SELECT
    r.rolname::text AS role,
    r.rolsuper AS superuser, r.rolcreaterole AS makes_roles, r.rolcreatedb AS makes_databases,
    r.rolreplication AS replicates, r.rolbypassrls AS bypasses,
    -- Where there is no schema, that is somebody else's to say.
    coalesce((SELECT has_schema_privilege(n.oid, 'USAGE') FROM pg_namespace AS n WHERE n.nspname = 'liveness'), true)
        AS uses,
    coalesce(l.tables, '{}') AS tables, coalesce(l.missing, '{}') AS missing
FROM pg_roles AS r
CROSS JOIN LATERAL (
    SELECT array_agg(t.name ORDER BY t.name) AS tables, array_agg(t.missing ORDER BY t.name) AS missing
    FROM (
        SELECT c.relname::text AS name, string_agg(p.privilege, ' or ' ORDER BY p.place) AS missing
        FROM pg_class AS c
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        CROSS JOIN unnest($1::text[]) WITH ORDINALITY AS p (privilege, place)
        WHERE n.nspname = 'liveness' AND c.relkind = 'r' AND NOT has_table_privilege(c.oid, p.privilege)
            -- Whoever migrates writes it.
            AND (c.relname <> 'migration' OR p.privilege = 'SELECT')
        GROUP BY c.relname
    ) AS t
) AS l
WHERE r.rolname = current_user
