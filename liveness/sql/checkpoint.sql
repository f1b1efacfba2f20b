-- Refresh last_heartbeat_at of workers that beat lately, in one statement; never backwards, never waiting.
-- $1: names  $2: seconds since the last beat of each
WITH heard AS (
    SELECT * FROM unnest($1::text[], $2::double precision[]) AS a (worker, ago)
),
locked AS (
    SELECT {registry_id} AS id, now() - make_interval(secs => h.ago) AS beat_at
    FROM {registry} AS r
    JOIN heard AS h ON {registry_named h.worker}
    WHERE {registry_heartbeat} IS NULL OR {registry_heartbeat} < now() - make_interval(secs => h.ago)
    ORDER BY {registry_id}
    FOR UPDATE OF r SKIP LOCKED
)
UPDATE {registry} AS r
SET {set_heartbeat} = l.beat_at
FROM locked AS l
WHERE {registry_id} = l.id
