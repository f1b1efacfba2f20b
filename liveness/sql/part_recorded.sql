counted AS (
    SELECT
        m.*,
        1 + (SELECT count(*) FROM liveness.reclaim AS h WHERE h.work = $5 AND h.id = m.id AND NOT h.observed)
            AS reclaim_count
    FROM moved AS m
),
recorded AS (
    INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count, observed)
    SELECT $5, c.id, c.worker, c.epoch, c.reclaim_count, $7
    FROM counted AS c
),
news AS (
    -- A parcel for each life: one row, however many events.
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, events, items, hash)
    SELECT
        $5 || '.reclaimed', $6, c.worker, $7, c.told::json, count(*),
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
    GROUP BY c.worker, c.epoch, c.told, c.hash
)
