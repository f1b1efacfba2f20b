-- The leader of this term goes on. No key changes, so it waits for nothing that acts, and nothing that acts for it.
-- $1: term  $2: holder
UPDATE {leader} SET renewed_at = clock_timestamp() WHERE term = $1 AND holder = $2 AND {of_share} RETURNING term
