-- Set the registry rows that WE set OFFLINE back to what they were, for names that were heard again. Never waiting: a
-- row that the host locks is set back on the next pass; one that is not OFFLINE any more is the host's own business.
-- Only while the name lives: one that has died again is owed nothing until it is heard again.
-- $1: offline  $2: names
WITH owing AS (
    SELECT x.worker, x.epoch, x.offlined
    FROM liveness.expiration AS x
    WHERE x.offlined IS NOT NULL AND x.recovered_at IS NOT NULL AND x.worker = ANY ($2::text[])
        AND EXISTS (SELECT FROM liveness.epoch AS n WHERE n.worker = x.worker AND n.ended_at IS NULL)
    ORDER BY x.worker, x.epoch
    FOR UPDATE SKIP LOCKED
),
mine AS (
    SELECT {registry_id} AS id, f.value AS former, o.worker, o.epoch
    FROM owing AS o
    CROSS JOIN jsonb_each_text(o.offlined) AS f
    JOIN {registry} AS r ON {registry_named o.worker} AND {registry_id}::text = f.key
    WHERE {registry_status}::text = $1::text
),
locked AS (
    SELECT {registry_id} AS id, m.former, m.worker, m.epoch
    FROM {registry} AS r
    JOIN mine AS m ON {registry_id} = m.id
    WHERE {registry_status}::text = $1::text
    ORDER BY {registry_id}
    FOR UPDATE OF r SKIP LOCKED
),
back AS (
    UPDATE {registry} AS r
    SET {set_status} = l.former::{status_type}, {set_heartbeat} = now()
    FROM locked AS l
    WHERE {registry_id} = l.id AND {registry_status}::text = $1::text
    RETURNING l.id, l.worker, l.epoch
)
UPDATE liveness.expiration AS x
SET offlined = NULL
FROM owing AS o
WHERE x.worker = o.worker AND x.epoch = o.epoch
    AND NOT EXISTS (
        SELECT FROM mine AS m
        WHERE m.worker = o.worker AND m.epoch = o.epoch AND NOT EXISTS (SELECT FROM back AS b WHERE b.id = m.id)
    )
