-- Resume. None, if nothing was paused.
-- $1: who
UPDATE liveness.pause
SET paused_at = NULL, ends_at = NULL, resumed_at = clock_timestamp(), resumed_by = $1
WHERE paused_at IS NOT NULL AND coalesce(ends_at > clock_timestamp(), true)
RETURNING turn
