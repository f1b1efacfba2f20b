-- Mark the ONLINE registry rows of suspects, remembering which: so many suspects, one statement. Our own rows first, the
-- host's never waited for: returned are the names of which some row was held, for the next pass. What the host has marked
-- otherwise is its own business.
-- $1: names  $2: online  $3: degraded
WITH held AS (
    SELECT d.worker
    FROM liveness.doubt AS d
    WHERE d.kind = 'suspected' AND d.over_at IS NULL AND d.worker = ANY ($1::text[])
        AND EXISTS (
            SELECT FROM liveness.epoch AS e WHERE e.worker = d.worker AND e.epoch = d.epoch AND e.ended_at IS NULL
        )
    ORDER BY d.worker
    FOR UPDATE SKIP LOCKED
),
mine AS (
    SELECT {registry_id} AS id, h.worker
    FROM {registry} AS r
    JOIN held AS h ON {registry_named h.worker}
    WHERE {registry_status}::text = $2::text
),
locked AS (
    SELECT {registry_id} AS id, m.worker
    FROM {registry} AS r
    JOIN mine AS m ON {registry_id} = m.id
    WHERE {registry_status}::text = $2::text
    ORDER BY {registry_id}
    FOR UPDATE OF r SKIP LOCKED
),
marked AS (
    UPDATE {registry} AS r
    SET {set_status} = {as_status $3}
    FROM locked AS l
    WHERE {registry_id} = l.id AND {registry_status}::text = $2::text
    RETURNING l.id, l.worker
),
gathered AS (
    SELECT worker, array_agg(id::text) AS ids
    FROM marked
    GROUP BY worker
),
remembered AS (
    UPDATE liveness.doubt AS d
    SET degraded = ARRAY(SELECT DISTINCT unnest(d.degraded || g.ids))
    FROM gathered AS g
    WHERE d.worker = g.worker AND d.kind = 'suspected'
)
SELECT DISTINCT m.worker FROM mine AS m WHERE m.id NOT IN (SELECT k.id FROM marked AS k)
