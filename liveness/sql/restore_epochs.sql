-- The lives that are open, with what a lease needs: all, or those of some names.
-- $1: names, or NULL for all
SELECT worker, epoch, incarnation, ttl, hello_uptime
FROM liveness.epoch
WHERE ended_at IS NULL AND ($1::text[] IS NULL OR worker = ANY ($1)) AND {ours}
