-- RUNNING rows that name no owner: nobody can say whose they are, so they are reported and left.
-- Not coalesce(owner, ''): no index on owners would find that.
-- $1: running  $2: seconds untouched
SELECT count(*)
FROM {work_table} AS w
WHERE {with_status $1} AND {owner_missing} AND {untouched $2}
