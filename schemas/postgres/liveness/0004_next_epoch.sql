-- liveness: the number of a next life is found by the key, whatever Postgres knows of the table.
-- compatible_from: 2
--
-- Postgres 18 keeps the plan of a function's statement. Made while the table was small, it reads all of it, for every
-- epoch that is issued: 4 ms each where 50,000 are there, until autovacuum comes by.
ALTER FUNCTION liveness.next_epoch(text) SET enable_seqscan = off;
ALTER FUNCTION liveness.next_epoch(text) SET enable_bitmapscan = off;
