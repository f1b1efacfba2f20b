-- Sessions that have had rows of a table locked for long, as far as our role may see since when. Who reads locks none,
-- nor does a vacuum.
-- $1: the table, as an identifier  $2: seconds
SELECT DISTINCT a.pid, a.state, extract(epoch FROM clock_timestamp() - a.xact_start)::double precision AS age
FROM pg_locks AS l
JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.granted AND l.mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock')
    AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
    AND (
        l.relation = $1::text::regclass
        OR l.relation IN (SELECT t.relid FROM pg_partition_tree($1::text::regclass) AS t)
    )
    AND a.xact_start < clock_timestamp() - make_interval(secs => $2)
ORDER BY age DESC
