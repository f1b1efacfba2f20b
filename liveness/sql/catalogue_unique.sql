-- Whether an index sees to it that no two rows of a table have the same id. Of a partitioned table, one that names
-- besides the id only what rows are divided by is all that there can be.
-- $1: schema  $2: name  $3: column of the id
SELECT EXISTS (
    SELECT
    FROM pg_index AS i
    JOIN pg_class AS c ON c.oid = i.indrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = $3
    LEFT JOIN pg_partitioned_table AS p ON p.partrelid = c.oid
    WHERE n.nspname = $1 AND c.relname = $2 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
        AND i.indexprs IS NULL
        AND (
            SELECT bool_or(k.attnum = a.attnum)
                AND bool_and(k.attnum = a.attnum OR p.partattrs::int2[] @> ARRAY[k.attnum])
            FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
            WHERE k.place <= i.indnkeyatts
        )
) AS told_apart
