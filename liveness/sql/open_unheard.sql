-- Open an epoch for names that we never heard and are about to end. It gives the reclaim its lock and its number: a
-- grant of the same name waits, and a name with an open epoch (somebody lives) is passed over.
-- What the sweep believed is checked here, so that no epoch is opened in vain, and again when the epoch is ended: by then
-- somebody else may have ended the same life, for whom this waited.
-- $1: [{worker, ttl, must_be_up, spare_within, hash}]  $2: statuses that are up
INSERT INTO liveness.epoch (worker, epoch, ttl, term, hash)
SELECT a.worker, liveness.next_epoch(a.worker), a.ttl, (SELECT l.term FROM {leader} AS l WHERE {of_share}), a.hash
FROM jsonb_to_recordset($1::jsonb)
    AS a (worker text, ttl double precision, must_be_up boolean, spare_within double precision, hash bigint)
WHERE (
        a.must_be_up IS NULL
        OR a.must_be_up = EXISTS (
            SELECT FROM {registry} AS r WHERE {registry_named a.worker} AND {registry_up $2}
        )
    )
    AND NOT EXISTS (
        SELECT FROM {registry} AS r
        WHERE {registry_named a.worker}
            AND {registry_heartbeat} > now() - make_interval(secs => a.spare_within)
            AND {registry_heartbeat} <= now() + make_interval(secs => a.spare_within)
    )
ORDER BY a.worker
-- Whatever stands in the way: an open epoch, or one that somebody opened in the same millisecond.
ON CONFLICT DO NOTHING
RETURNING worker, epoch
