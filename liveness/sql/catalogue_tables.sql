-- The tables that there are, to find the one that somebody may have meant.
SELECT n.nspname AS space, c.relname AS name
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'liveness')
ORDER BY n.nspname, c.relname
LIMIT 10000
