moved AS (
    UPDATE {work_table} AS w
    SET {put_back}
    FROM taken AS t
    WHERE {id} = t.id AND {running $2} AND {owned_by t.worker}
    RETURNING
        {id}::text AS id, {kind} AS kind, {queue} AS queue, t.worker, t.epoch, t.told, t.hash, t.crash,
        CASE WHEN {status_is $9} THEN 'exhausted' END AS outcome
)
