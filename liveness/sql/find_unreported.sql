-- RUNNING rows of workers that list what they run, and not these. What differs in the spelling of an id alone is listed.
-- What a reclaim that is not finished has still to put back was a former life's.
-- $1: names  $2, $3: who lists what, in pairs, as it stands and folded  $4: running  $5: word for this work  $6: limit
-- $7: whether those are left out that were told of as they are: nothing else is done about them
WITH listed AS MATERIALIZED (
    SELECT * FROM unnest($2::text[], $3::text[]) AS a (worker, id)
)
SELECT {owner_name} AS worker, {id}::text AS id, w.xmin::text AS mark
FROM {work_table} AS w
WHERE {owned_by_any $1::text[]} AND {running $4}
    AND ({owner_name}, {id}::text) NOT IN (SELECT l.worker, l.id FROM listed AS l)
    AND ({owner_name}, lower(btrim(translate({id}::text, '-{}', '')))) NOT IN (SELECT l.worker, l.id FROM listed AS l)
    AND NOT EXISTS (
        SELECT FROM liveness.remainder AS d WHERE d.work = $5 AND d.worker = {owner_name} AND d.id = {id}::text
    )
    AND NOT (
        $7 AND EXISTS (
            SELECT FROM liveness.leak AS k
            WHERE k.work = $5 AND k.id = {id}::text AND k.worker = {owner_name} AND k.mark = w.xmin::text
        )
    )
LIMIT $6
