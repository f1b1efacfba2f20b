-- How often these ids went back, the last times of each kind of work first, with the lives that had held them. What
-- leaked, of a life that went on, says so: however that life ended later, it is not why. Both were written at one moment.
-- $1: ids, as the history has them  $2: how many of each kind
WITH moves AS (
    SELECT h.*, row_number() OVER (PARTITION BY h.work ORDER BY h.reclaimed_at DESC, h.epoch DESC) AS place
    FROM unnest($1::text[]) AS a (id)
    -- Looked up one by one, each by the index.
    CROSS JOIN LATERAL (SELECT * FROM liveness.reclaim AS r WHERE r.id = a.id) AS h
)
SELECT
    m.work, m.id, m.worker, m.epoch, m.reclaim_count, m.observed, m.reclaimed_at, m.outcome, m.crash,
    k.incarnation AS leak_incarnation, k.decided_by AS leak_decided_by, k.transaction_id AS leak_transaction_id,
    k.evidence AS leak_evidence,
    e.epoch AS life, {why_life}
FROM moves AS m
LEFT JOIN liveness.epoch AS e ON e.worker = m.worker AND e.epoch = m.epoch
LEFT JOIN liveness.expiration AS x ON x.worker = m.worker AND x.epoch = m.epoch
LEFT JOIN liveness.leak AS k
    ON k.work = m.work AND k.id = m.id AND k.worker = m.worker AND k.epoch = m.epoch AND k.reclaimed
    AND k.found_at = m.reclaimed_at
WHERE m.place <= $2
ORDER BY m.reclaimed_at DESC, m.epoch DESC
