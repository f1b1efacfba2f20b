-- What our role may do with a table of the host's: the columns that each privilege covers, and what it may do with all of
-- it.
-- $1: schema  $2: name  $3: a system column that we read  $4: privileges on the whole table that nobody needs
SELECT
    current_user::text AS role,
    has_schema_privilege(n.oid, 'USAGE') AS uses,
    has_schema_privilege(n.oid, 'CREATE') AS creates,
    pg_has_role(c.relowner, 'USAGE') AS owns,
    p."SELECT", p."UPDATE", p."INSERT",
    -- Which privileges there are depends on the version.
    ARRAY(
        SELECT DISTINCT g.privilege_type
        FROM aclexplode(coalesce(c.relacl, acldefault('r', c.relowner))) AS g
        WHERE g.privilege_type = ANY ($4::text[]) AND (g.grantee = 0 OR pg_has_role(g.grantee, 'USAGE'))
        ORDER BY 1
    ) AS whole
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    SELECT
        coalesce(array_agg(a.name) FILTER (WHERE has_column_privilege(c.oid, a.attnum, 'SELECT')), '{}') AS "SELECT",
        coalesce(array_agg(a.name) FILTER (WHERE has_column_privilege(c.oid, a.attnum, 'UPDATE')), '{}') AS "UPDATE",
        coalesce(array_agg(a.name) FILTER (WHERE has_column_privilege(c.oid, a.attnum, 'INSERT')), '{}') AS "INSERT"
    FROM (
        SELECT t.attnum, t.attname::text AS name
        FROM pg_attribute AS t
        WHERE t.attrelid = c.oid AND NOT t.attisdropped AND (t.attnum > 0 OR t.attname = $3)
    ) AS a
) AS p
WHERE n.nspname = $1 AND c.relname = $2
