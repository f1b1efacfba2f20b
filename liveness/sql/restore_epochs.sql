-- The lives that are open, with what a lease needs.
SELECT worker, epoch, incarnation, ttl FROM liveness.epoch WHERE ended_at IS NULL
