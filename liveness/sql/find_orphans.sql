-- Owners of RUNNING rows, untouched for a while, who are not up in the registry.
-- $1: statuses that are up  $2: seconds  $3: running  $4: word for this work  $5: whether observed reclaims count
-- $6: of these owners  $7: of owners behind this one; NULL: of all
SELECT {owner_name} AS worker, count(*) AS items,
    (SELECT p.ttl FROM liveness.epoch AS p WHERE p.worker = {owner_name} ORDER BY p.epoch DESC LIMIT 1) AS ttl
FROM {work_table} AS w
WHERE {running $3} AND {owner_given}
    AND ($6::text[] IS NULL OR {owned_by_any $6}) AND ($7::text IS NULL OR {owner_behind $7})
    AND {untouched $2}
    AND NOT EXISTS (
        SELECT FROM {registry} AS r WHERE {registry_owns} AND {registry_up $1}
    )
    -- What a reclaim that is not finished has still to put back is nobody's orphan.
    AND NOT EXISTS (
        SELECT FROM liveness.remainder AS d WHERE d.work = $4 AND d.worker = {owner_name} AND d.id = {id}::text
    )
    AND NOT (
        $5 AND EXISTS (
            SELECT FROM liveness.reclaim AS h
            WHERE h.work = $4 AND h.id = {id}::text AND h.observed AND h.reclaimed_at > {touched}
        )
    )
GROUP BY {owner}
