-- The row of a share that nobody led yet.
-- $1: share  $2: of how many
INSERT INTO liveness.share_leader (share, shares, term, holder, renewed_at)
VALUES ($1, $2, 0, NULL, '-infinity')
ON CONFLICT DO NOTHING
