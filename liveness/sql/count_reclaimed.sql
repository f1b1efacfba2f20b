-- How much of one life's work was put back so far.
-- $1: worker  $2: epoch
SELECT count(*) AS items FROM liveness.reclaim WHERE worker = $1 AND epoch = $2 AND NOT observed
