-- One row of a work table as it stands, by its key; the id as the table writes it, whether or not it is there, and
-- whether it is there and no work of this kind; whether a reclaim has fixed that the row goes back and has not come to
-- it, or what the table had against that; and whether it was told of as leaked, as it stands. What a column of the host's
-- holds may be long.
-- Refused by Postgres if the id is not of the column's type.
-- $1: id as text  $2: word for this work  $3: running  $4: waiting
SELECT
    coalesce({id}::text, a.id::text) AS id, {id} IS NOT NULL AS there,
    {id} IS NULL AND EXISTS (SELECT FROM {work_table} AS w WHERE {id} = a.id) AS elsewhere,
    {status_shown} AS status, coalesce({running $3}, false) AS running,
    coalesce({with_status $4}, false) AS waiting, left({owner_name}, 1024) AS owner, {kind} AS kind, {queue} AS queue,
    CASE WHEN isfinite({touched}) THEN {touched}::timestamptz END AS touched_at,
    d.id IS NOT NULL AS fixed, d.refused,
    k.epoch AS leak_epoch, k.found_at AS leak_found_at, k.incarnation AS leak_incarnation,
    k.decided_by AS leak_decided_by, k.transaction_id AS leak_transaction_id, k.evidence AS leak_evidence
FROM (SELECT $1::text::{id_base} AS id) AS a
LEFT JOIN {work_table} AS w ON {id} = a.id{where}
LEFT JOIN LATERAL (
    SELECT r.id, r.refused FROM liveness.remainder AS r
    WHERE r.worker = {owner_name} AND r.work = $2 AND r.id = {id}::text
        -- As a reclaim judges it: what a later life of the name has touched is that one's.
        AND (
            r.mark = w.xmin::text
            OR NOT EXISTS (SELECT FROM liveness.epoch AS n WHERE n.worker = r.worker AND n.epoch > r.epoch)
        )
    LIMIT 1
) AS d ON true
LEFT JOIN LATERAL (
    SELECT l.* FROM liveness.leak AS l
    WHERE l.work = $2 AND l.id = {id}::text AND l.worker = {owner_name} AND l.mark = w.xmin::text AND NOT l.reclaimed
    ORDER BY l.epoch DESC
    LIMIT 1
) AS k ON true
