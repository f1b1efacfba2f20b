-- Set the registry rows that WE set DEGRADED back, of doubts that are over, and forget those doubts. Only of names that
-- live: what is over with the life is marked OFFLINE by its end. A row that is not DEGRADED any more is the host's own
-- business. Never waiting: returned are the names of which something is left for the next pass.
-- $1: names  $2: online  $3: degraded  $4: observed: what was marked in mode act stays until somebody acts again
WITH owing AS (
    SELECT d.worker, d.kind, d.degraded
    FROM liveness.doubt AS d
    WHERE d.over_at IS NOT NULL AND d.worker = ANY ($1::text[])
    ORDER BY d.worker, d.kind
    FOR UPDATE SKIP LOCKED
),
mine AS (
    SELECT {registry_id} AS id, o.worker
    FROM owing AS o
    CROSS JOIN unnest(o.degraded) AS f (id)
    JOIN {registry} AS r ON {registry_named o.worker} AND {registry_id}::text = f.id
    WHERE {registry_status}::text = $3::text
),
locked AS (
    SELECT {registry_id} AS id
    FROM {registry} AS r
    JOIN mine AS m ON {registry_id} = m.id
    WHERE NOT $4 AND {registry_status}::text = $3::text
        AND EXISTS (SELECT FROM liveness.epoch AS e WHERE e.worker = m.worker AND e.ended_at IS NULL)
    ORDER BY {registry_id}
    FOR UPDATE OF r SKIP LOCKED
),
back AS (
    UPDATE {registry} AS r
    SET {set_status} = {as_status $2}
    FROM locked AS l
    WHERE {registry_id} = l.id AND {registry_status}::text = $3::text
    RETURNING l.id
),
rest AS (
    SELECT m.worker, array_agg(m.id::text) AS ids
    FROM mine AS m
    WHERE m.id NOT IN (SELECT b.id FROM back AS b)
    GROUP BY m.worker
),
forgotten AS (
    DELETE FROM liveness.doubt AS d
    USING owing AS o
    WHERE d.worker = o.worker AND d.kind = o.kind
        AND (o.degraded = '{}' OR o.worker NOT IN (SELECT s.worker FROM rest AS s))
),
shortened AS (
    UPDATE liveness.doubt AS d
    SET degraded = s.ids
    FROM rest AS s
    WHERE d.worker = s.worker AND d.kind = 'suspected'
)
SELECT s.worker FROM rest AS s
