-- Nothing was put back, so what was observed once is found again and again; it is news only once.
        AND NOT EXISTS (
            SELECT FROM liveness.reclaim AS h
            WHERE h.work = $5 AND h.id = {id}::text AND h.worker = e.worker AND h.observed
                AND h.reclaimed_at > {touched}
        )
