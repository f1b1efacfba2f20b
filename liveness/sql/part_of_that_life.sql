{running $2}
        AND (
            e.untouched_for IS NULL
            -- Where nobody knows when, only word of the end is enough, while nobody else of the name is there.
            OR coalesce(
                {touched} < now() - make_interval(secs => e.untouched_for),
                e.reason IN ('released', 'died') AND NOT e.followed
            )
        )
        AND NOT EXISTS (
            SELECT FROM liveness.remainder AS d
            WHERE d.worker = e.worker AND d.work = $5 AND d.id = {id}::text AND d.mark = w.xmin::text
                -- A former life's; else each row would go through all that this statement, or a try that was undone, has
                -- written of its own into the index by then.
                AND d.epoch < e.epoch
        )
        {unless_observed}
