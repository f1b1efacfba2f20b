-- Of these lives, those whose registry rows WE set OFFLINE, and that are there and OFFLINE still: whoever is heard again
-- under the name is owed that they are set back.
-- $1: [{worker, epoch}]  $2: offline
SELECT DISTINCT x.worker, x.epoch
FROM liveness.expiration AS x
JOIN jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint) USING (worker, epoch)
CROSS JOIN jsonb_each_text(x.offlined) AS f
JOIN {registry} AS r ON {registry_named x.worker} AND {registry_id}::text = f.key
WHERE {registry_status}::text = $2::text
