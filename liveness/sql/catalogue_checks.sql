-- The CHECK constraints of a table that look at nothing but one column, with what they say.
-- $1: schema  $2: name  $3: column
SELECT k.conname AS name, pg_get_expr(k.conbin, k.conrelid) AS condition
FROM pg_constraint AS k
JOIN pg_class AS c ON c.oid = k.conrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = $3
WHERE n.nspname = $1 AND c.relname = $2 AND k.contype = 'c' AND k.conkey = ARRAY[a.attnum]
ORDER BY k.conname
