moved AS (
    SELECT
        {id}::text AS id, {kind} AS kind, {queue} AS queue, t.worker, t.epoch, t.told, t.hash
    FROM {work_table} AS w
    JOIN taken AS t ON {id} = t.id
    WHERE $3::text IS NOT NULL
)
