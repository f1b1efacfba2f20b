-- Issue the epochs of lives that want one. Idempotent for each life: an open epoch of the name is this life's.
-- While a transaction ends an epoch of the name, this waits for it: no life begins before it is fixed which rows were
-- the former one's.
-- $1: [{worker, incarnation, ttl}]  $2: leader term
INSERT INTO liveness.epoch AS e (worker, epoch, incarnation, ttl, term)
SELECT a.worker, liveness.next_epoch(a.worker), a.incarnation, a.ttl, $2
FROM jsonb_to_recordset($1::jsonb) AS a (worker text, incarnation text, ttl double precision)
ORDER BY a.worker
ON CONFLICT (worker) WHERE ended_at IS NULL
    DO UPDATE SET ttl = excluded.ttl, incarnation = coalesce(excluded.incarnation, e.incarnation)
RETURNING e.worker, e.epoch
