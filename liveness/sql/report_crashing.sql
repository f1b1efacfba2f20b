-- Tell of work that has its crash budget behind it and goes back all the same.
-- $1: [{worker, epoch}]  $2: [{id, worker, epoch, data}]  $3: word for this work
WITH {ended}
INSERT INTO liveness.outbox (type, subject, worker, told, hash)
SELECT $3 || '.crashing', g.id, e.worker, (e.told::jsonb || g.data)::json, e.hash
FROM jsonb_to_recordset($2::jsonb) AS g (id text, worker text, epoch bigint, data jsonb)
JOIN ended AS e USING (worker, epoch)
