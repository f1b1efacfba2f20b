-- The first row behind another one of what is left to put back.
-- $1: word for this work  $2, $3, $4: worker, epoch and id behind which it is
SELECT worker, epoch, id FROM liveness.remainder_behind($1, $2, $3, $4, 1)
