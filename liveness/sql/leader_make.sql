-- The row of a share that was never led.
-- $1: share
INSERT INTO liveness.leader (share, term, holder, renewed_at) VALUES ($1, 0, NULL, '-infinity') ON CONFLICT DO NOTHING
