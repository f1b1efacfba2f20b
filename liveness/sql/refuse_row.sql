-- Leave a row that its table refuses to put back, or let one wait longer that was refused before (its cause may be known
-- no better now). None, if it is not left over any more.
-- $1: word for this work  $2: worker  $3: epoch  $4: id  $5: why, or NULL  $6: seconds, the first time  $7: at most
UPDATE liveness.remainder AS d
SET
    refused = coalesce($5, d.refused),
    retry_after = least(coalesce(2 * d.retry_after, $6), $7),
    retry_at = now() + make_interval(secs => least(coalesce(2 * d.retry_after, $6), $7))
WHERE d.work = $1 AND d.worker = $2 AND d.epoch = $3 AND d.id = $4
RETURNING d.id
