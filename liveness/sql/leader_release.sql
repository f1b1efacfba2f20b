-- The leader of this term goes: the next one need not wait.
-- $1: term  $2: holder
UPDATE {leader} SET holder = NULL, renewed_at = '-infinity' WHERE term = $1 AND holder = $2 AND {of_share}
