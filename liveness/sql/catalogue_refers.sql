-- Whether a foreign key leads from a column to one of another table.
-- $1: schema  $2: name  $3: column  $4: schema of the other  $5: its name  $6: its column
SELECT EXISTS (
    SELECT
    FROM pg_constraint AS k
    JOIN pg_class AS c ON c.oid = k.conrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = $3
    JOIN pg_class AS d ON d.oid = k.confrelid
    JOIN pg_namespace AS m ON m.oid = d.relnamespace
    JOIN pg_attribute AS b ON b.attrelid = d.oid AND b.attname = $6
    WHERE n.nspname = $1 AND c.relname = $2 AND m.nspname = $4 AND d.relname = $5
        AND k.contype = 'f' AND k.conkey = ARRAY[a.attnum] AND k.confkey = ARRAY[b.attnum]
) AS refers
