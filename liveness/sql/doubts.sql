-- What is held against lives that go on, and what is still to be set back of it.
SELECT worker, kind, epoch, progress, over_at IS NOT NULL AS over,
    extract(epoch FROM clock_timestamp() - raised_at)::double precision AS raised_ago
FROM liveness.doubt
WHERE {ours}
