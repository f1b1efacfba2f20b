-- How long ago, in seconds, this transaction began: by `now()`, that is what every age in it is reckoned from.
SELECT greatest(extract(epoch FROM clock_timestamp() - now()), 0)::double precision AS seconds
