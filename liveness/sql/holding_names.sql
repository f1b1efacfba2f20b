-- Which of these names own RUNNING rows of one work table that nobody touched since its incarnation began? And how many
-- seconds ago was that? An incarnation of which a life has ended was there by then, however late we heard of it again.
-- $1: names  $2: incarnation of each  $3: seconds since it began, by what was heard  $4: running
-- $5: word for this work
WITH arrived AS (
    SELECT a.worker, least(
        now() - make_interval(secs => a.age),
        (SELECT min(x.expired_at) FROM liveness.expiration AS x
         WHERE x.worker = a.worker AND x.incarnation = a.incarnation)
    ) AS begun
    FROM unnest($1::text[], $2::text[], $3::double precision[]) AS a (worker, incarnation, age)
)
SELECT a.worker, extract(epoch FROM now() - a.begun)::double precision AS age
FROM arrived AS a
WHERE EXISTS (
    SELECT FROM {work_table} AS w
    WHERE {owned_by a.worker} AND {running $4} AND {touched} < a.begun
        -- What its table refuses to put back is left over from a life that has ended already.
        AND NOT EXISTS (
            SELECT FROM liveness.remainder AS d
            WHERE d.worker = a.worker AND d.work = $5 AND d.id = {id}::text AND d.mark = w.xmin::text
                AND d.refused IS NOT NULL
        )
)
