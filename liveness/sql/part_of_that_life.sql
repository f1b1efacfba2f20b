{status} = $2
        AND coalesce(
            {touched} < now() - make_interval(secs => e.untouched_for),
            -- Nobody knows when. Where only what is old may be taken, it is left.
            e.reason NOT IN ('restarted', 'orphaned')
        )
        AND NOT EXISTS (
            SELECT FROM liveness.remainder AS d
            WHERE d.worker = e.worker AND d.work = $5 AND d.id = {id}::text AND d.mark = w.xmin::text
        )
        {unless_observed}
