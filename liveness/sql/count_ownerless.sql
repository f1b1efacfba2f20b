-- RUNNING rows that name no owner: nobody can say whose they are, so they are reported and left.
-- Not coalesce(owner, ''): no index on owners would find that.
-- $1: running  $2: seconds untouched
SELECT count(*)
FROM {work_table} AS w
WHERE {status} = $1 AND ({owner} IS NULL OR {owner} = '') AND {touched} < now() - make_interval(secs => $2)
