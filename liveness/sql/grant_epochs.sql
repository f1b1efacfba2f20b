-- Issue the epochs of lives that want one, under the leader's term. Idempotent for each life: an open epoch of the name
-- is this life's, unless it is known to be of another incarnation. Such a name is left out, its row locked all the same.
-- While a transaction ends an epoch of the name, this waits for it: no life begins before it is fixed which rows were
-- the former one's.
-- $1: [{worker, incarnation, ttl}]
INSERT INTO liveness.epoch AS e (worker, epoch, incarnation, ttl, term)
SELECT a.worker, liveness.next_epoch(a.worker), a.incarnation, a.ttl, (SELECT l.term FROM liveness.leader AS l)
FROM jsonb_to_recordset($1::jsonb) AS a (worker text, incarnation text, ttl double precision)
ORDER BY a.worker
ON CONFLICT (worker) WHERE ended_at IS NULL
    DO UPDATE SET ttl = excluded.ttl, incarnation = coalesce(excluded.incarnation, e.incarnation)
    WHERE e.incarnation IS NULL OR excluded.incarnation IS NULL OR e.incarnation = excluded.incarnation
RETURNING e.worker, e.epoch
