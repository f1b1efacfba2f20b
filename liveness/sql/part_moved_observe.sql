moved AS (
    SELECT
        {id}::text AS id, {kind} AS kind, {queue} AS queue, t.worker, t.epoch, t.told, t.hash, t.crash,
        NULL::text AS outcome
    FROM {work_table} AS w
    JOIN taken AS t ON {id} = t.id
    -- What only an UPDATE asks for.
    WHERE num_nonnulls($3::text, $9::text) > 0
)
