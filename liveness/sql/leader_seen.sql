-- Who leads, and how long ago (seconds) that was last renewed; NULL: never, or it was released.
SELECT term, holder,
    CASE WHEN isfinite(renewed_at) THEN extract(epoch FROM clock_timestamp() - renewed_at)::double precision END AS age
FROM {leader}
WHERE {of_share}
