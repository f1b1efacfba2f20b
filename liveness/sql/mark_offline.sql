-- Mark the ended lives' rows in the registry, remembering what they were, and note which reclaims are finished with it.
-- Of a row that WE set DEGRADED, when its worker was suspected, what it was before.
-- Last in the transaction, and never waiting: a row that the host locks is marked on the next pass. A name that lives
-- again by now is not marked; nor is one that a restart ended: it lives, and an OFFLINE of a moment would have the host
-- refuse the new process its claims.
-- $1: [{worker, epoch}]  $2: statuses that are up  $3: offline  $4: observed  $5: degraded  $6: online
WITH ended AS (
    SELECT * FROM jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint)
),
mine AS (
    SELECT
        {registry_id} AS id, {registry_status}::text AS status, e.worker, e.epoch,
        CASE
            WHEN {registry_status}::text = $5::text AND EXISTS (
                SELECT FROM liveness.doubt AS d WHERE d.worker = e.worker AND {registry_id}::text = ANY (d.degraded)
            ) THEN $6::text
            ELSE {registry_status}::text
        END AS former
    FROM {registry} AS r
    JOIN ended AS e ON {registry_named e.worker}
    WHERE NOT $4 AND {registry_up $2}
        AND NOT EXISTS (SELECT FROM liveness.epoch AS o WHERE o.worker = e.worker AND o.ended_at IS NULL)
        AND NOT EXISTS (
            SELECT FROM liveness.expiration AS x
            WHERE x.worker = e.worker AND x.epoch = e.epoch AND x.reason = 'restarted'
        )
),
locked AS (
    SELECT {registry_id} AS id, m.status, m.former, m.worker, m.epoch
    FROM {registry} AS r
    JOIN mine AS m ON {registry_id} = m.id
    WHERE {registry_status}::text = m.status
    ORDER BY {registry_id}
    FOR UPDATE OF r SKIP LOCKED
),
marked AS (
    UPDATE {registry} AS r
    SET {set_status} = {offline}
    FROM locked AS l
    WHERE {registry_id} = l.id AND {registry_status}::text = l.status
    RETURNING l.id, l.former, l.worker, l.epoch
),
gathered AS (
    SELECT worker, epoch, jsonb_object_agg(id::text, former) AS offlined
    FROM marked
    GROUP BY worker, epoch
),
settled AS (
    SELECT
        e.worker, e.epoch, g.offlined,
        (e.worker, e.epoch) NOT IN (SELECT m.worker, m.epoch FROM mine AS m WHERE m.id NOT IN (SELECT k.id FROM marked AS k))
            AND NOT EXISTS (SELECT FROM liveness.remainder AS d WHERE d.worker = e.worker AND d.epoch = e.epoch AND d.refused IS NULL)
            AS finished
    FROM ended AS e
    LEFT JOIN gathered AS g USING (worker, epoch)
)
UPDATE liveness.expiration AS x
SET
    offlined = CASE WHEN s.offlined IS NULL THEN x.offlined ELSE coalesce(x.offlined, '{}') || s.offlined END,
    finished_at = CASE WHEN s.finished THEN now() END
FROM settled AS s
WHERE x.worker = s.worker AND x.epoch = s.epoch AND (s.finished OR s.offlined IS NOT NULL)
