-- One row of a work table as it stands, by its key; the id as the table writes it, whether or not it is there; and whether
-- a reclaim has fixed that the row goes back and has not come to it. What a column of the host's holds may be long.
-- Refused by Postgres if the id is not of the column's type.
-- $1: id as text  $2: word for this work
SELECT
    coalesce({id}::text, a.id::text) AS id, {id} IS NOT NULL AS there,
    left({status}::text, 256) AS status, left({owner_name}::text, 1024) AS owner, {kind} AS kind, {queue} AS queue,
    CASE WHEN isfinite({touched}) THEN {touched}::timestamptz END AS touched_at,
    EXISTS (
        SELECT FROM liveness.remainder AS d WHERE d.worker = {owner_name} AND d.work = $2 AND d.id = {id}::text
    ) AS fixed,
    (
        SELECT max(d.refused) FROM liveness.remainder AS d
        WHERE d.worker = {owner_name} AND d.work = $2 AND d.id = {id}::text
    ) AS refused
FROM (SELECT $1::text::{id_base} AS id) AS a
LEFT JOIN {work_table} AS w ON {id} = a.id{where}
