-- Pause, or say anew who did and why. It waits for nobody, and whoever begins to take something behind it finds it.
-- $1: who  $2: why, or NULL  $3: seconds until it ends by itself, or NULL
UPDATE liveness.pause
SET
    paused_at = CASE
        WHEN paused_at IS NOT NULL AND coalesce(ends_at > clock_timestamp(), true) THEN paused_at
        ELSE clock_timestamp()
    END,
    ends_at = clock_timestamp() + make_interval(secs => $3), paused_by = $1, why = $2, resumed_at = NULL, resumed_by = NULL
