-- Whether it is paused, by whom, since when and for how long (seconds); or who has resumed last.
SELECT
    paused_at IS NOT NULL AND coalesce(ends_at > clock_timestamp(), true) AS holds,
    paused_by, coalesce(why, '') AS why, to_char(paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS since,
    extract(epoch FROM clock_timestamp() - paused_at)::double precision AS held_for,
    extract(epoch FROM ends_at - clock_timestamp())::double precision AS seconds_left,
    resumed_by
FROM liveness.pause
