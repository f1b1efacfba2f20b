counted AS (
    SELECT
        m.*, 1 + p.reclaims AS reclaim_count,
        -- At most: of deaths that are explained by now, `find_suspects` knows.
        CASE WHEN m.crash THEN 1 + p.crashes END AS crash_count
    FROM moved AS m
    CROSS JOIN LATERAL (
        SELECT
            count(*) AS reclaims,
            count(*) FILTER (WHERE h.crash AND h.reclaimed_at > now() - make_interval(secs => $8)) AS crashes
        FROM liveness.reclaim AS h
        WHERE h.work = $5 AND h.id = m.id AND NOT h.observed
    ) AS p
),
recorded AS (
    INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count, observed, crash, outcome)
    SELECT $5, c.id, c.worker, c.epoch, c.reclaim_count, $7, c.crash, c.outcome
    FROM counted AS c
),
news AS (
    -- A parcel for each life, and another of what did not go back: one row, however many events.
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, events, items, hash)
    SELECT
        $5 || '.' || coalesce(c.outcome, 'reclaimed'), $6, c.worker, $7, c.told::json, count(*),
        concat(
            '[',
            string_agg(
                concat(
                    '[', to_json(c.id), ',', coalesce(to_json(c.kind), 'null'), ',', coalesce(to_json(c.queue), 'null'),
                    ',', c.reclaim_count, ']'
                ),
                ','
            ),
            ']'
        )::json,
        c.hash
    FROM counted AS c
    GROUP BY c.worker, c.epoch, c.told, c.hash, c.outcome
)
