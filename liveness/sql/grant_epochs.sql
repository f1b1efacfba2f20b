-- Issue the epochs of lives that want one, under the leader's term. Idempotent for each life: an open epoch of the name
-- is this life's, unless it is known to be of another incarnation. Such a name is left out, its row locked all the same.
-- While a transaction ends an epoch of the name, this waits for it: no life begins before it is fixed which rows were
-- the former one's.
-- $1: [{worker, incarnation, ttl, hello_uptime, hash}]
INSERT INTO liveness.epoch AS e (worker, epoch, incarnation, ttl, hello_uptime, term, hash)
SELECT a.worker, liveness.next_epoch(a.worker), a.incarnation, a.ttl, a.hello_uptime,
    (SELECT l.term FROM {leader} AS l WHERE {of_share}), a.hash
FROM jsonb_to_recordset($1::jsonb) AS a
    (worker text, incarnation text, ttl double precision, hello_uptime double precision, hash bigint)
ORDER BY a.worker
ON CONFLICT (worker) WHERE ended_at IS NULL
    DO UPDATE SET
        ttl = excluded.ttl, incarnation = coalesce(excluded.incarnation, e.incarnation), hash = excluded.hash,
        hello_uptime = greatest(excluded.hello_uptime, e.hello_uptime)
    WHERE e.incarnation IS NULL OR excluded.incarnation IS NULL OR e.incarnation = excluded.incarnation
RETURNING e.worker, e.epoch
