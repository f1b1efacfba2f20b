-- May this transaction act? If so, no other term begins before it ends.
-- The holder too, because a database restored from a backup issues terms again that were in use after it was made.
-- And how long ago, in seconds, this transaction began: asked here, it costs no message of its own.
-- $1: term  $2: holder
SELECT greatest(extract(epoch FROM clock_timestamp() - now()), 0)::double precision AS since_begin{seen_in_locks}
FROM {leader} WHERE term = $1 AND holder = $2 AND {of_share} FOR KEY SHARE
