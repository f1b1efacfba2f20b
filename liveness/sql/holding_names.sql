-- Which of these names own RUNNING rows of one work table that nobody touched for longer than their time?
-- $1: names  $2: seconds of each  $3: running
SELECT a.worker
FROM unnest($1::text[], $2::double precision[]) AS a (worker, age)
WHERE EXISTS (
    SELECT FROM {work_table} AS w
    WHERE {owner} = a.worker AND {status} = $3 AND {touched} < now() - make_interval(secs => a.age)
)
