-- Forget lives that ended long ago, with their epochs. Not one whose reclaim is not finished, or was a short while ago;
-- nor any of a name of which a table has refused to take rows back: whether it has lived on since is still asked; nor one
-- with a number that is not in the past, so that no number is issued twice.
-- $1: [{worker, epoch}]  $2: seconds
WITH ended AS (
    DELETE FROM liveness.expiration AS x
    USING jsonb_to_recordset($1::jsonb) AS a (worker text, epoch bigint)
    WHERE x.worker = a.worker AND x.epoch = a.epoch AND x.finished_at < now() - make_interval(secs => $2)
        AND x.epoch < (extract(epoch FROM now() - make_interval(secs => $2)) * 1000)::bigint
        AND NOT EXISTS (SELECT FROM liveness.remainder AS d WHERE d.worker = x.worker)
    RETURNING x.worker, x.epoch
),
gone AS (
    DELETE FROM liveness.epoch AS e
    USING ended AS x
    WHERE e.worker = x.worker AND e.epoch = x.epoch AND e.ended_at IS NOT NULL
),
noted AS (
    UPDATE liveness.retention
    SET forgotten_before = greatest(forgotten_before, now() - make_interval(secs => $2))
    WHERE EXISTS (SELECT FROM ended)
)
SELECT count(*) AS rows FROM ended
