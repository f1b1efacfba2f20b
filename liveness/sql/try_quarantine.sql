-- Whether the host's table takes the status of a quarantine: tried on one of its rows, by whoever rolls it back.
-- $1: status of the row to try  $2: error  $3: quarantine status
UPDATE {work_table} AS w
SET {set_aside}
FROM (
    SELECT {id} AS id, $2::text AS error FROM {work_table} AS w WHERE {with_status $1} LIMIT 1 FOR UPDATE SKIP LOCKED
) AS t
WHERE {id} = t.id
RETURNING 1
