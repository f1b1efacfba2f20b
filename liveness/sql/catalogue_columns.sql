-- The columns of a relation as the catalogue has them, with what is behind their domains; none if there is no relation.
-- $1: schema  $2: name
SELECT
    a.attname AS name, c.relkind::text AS kind, row_security_active(c.oid) AS hidden,
    format_type(a.atttypid, a.atttypmod) AS type,
    format_type(b.oid, NULL) AS base,
    CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) ELSE format_type(a.atttypid, a.atttypmod) END
        AS dated,
    b.typtype = 'e' AS enum,
    a.attnotnull OR t.typnotnull AS not_null,
    a.attgenerated <> '' OR a.attidentity = 'a' AS generated,
    a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL AS has_default
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid
JOIN pg_class AS c ON c.oid = a.attrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (
    WITH RECURSIVE behind AS (
        SELECT t.oid, t.typtype, t.typbasetype
        UNION ALL
        SELECT d.oid, d.typtype, d.typbasetype FROM behind AS f JOIN pg_type AS d ON d.oid = f.typbasetype
        WHERE f.typtype = 'd'
    )
    SELECT f.oid, f.typtype FROM behind AS f WHERE f.typtype <> 'd'
) AS b
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind <> 'i' AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
