-- The leader of this term goes on. No key changes, so it waits for nothing that acts, and nothing that acts for it.
-- It tells what that clock says (seconds).
-- $1: term  $2: holder
UPDATE {leader} SET renewed_at = clock_timestamp() WHERE term = $1 AND holder = $2 AND {of_share}
RETURNING extract(epoch FROM renewed_at)::double precision
