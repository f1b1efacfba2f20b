-- The leader of this term goes: the next one need not wait.
-- $1: term  $2: holder  $3: share
UPDATE liveness.leader SET holder = NULL, renewed_at = '-infinity' WHERE term = $1 AND holder = $2 AND share = $3
