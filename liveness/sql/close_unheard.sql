-- Undo open_unheard for names that are not ended after all: an open epoch says that somebody lives.
-- $1: [{worker, epoch}]
DELETE FROM liveness.epoch AS e
USING jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint)
WHERE e.worker = a.worker AND e.epoch = a.epoch AND e.ended_at IS NULL
