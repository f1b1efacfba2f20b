{status} = $2
        AND {touched} < now() - make_interval(secs => e.untouched_for)
        AND NOT EXISTS (
            SELECT FROM liveness.remainder AS d
            WHERE d.worker = e.worker AND d.work = $5 AND d.id = {id}::text AND d.mark = w.xmin::text
        )
        {unless_observed}
