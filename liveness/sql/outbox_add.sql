-- An event that concerns no worker. Wakes the relay when it is committed.
-- $1: type  $2: subject  $3: data  $4: observed  $5: as the hash of a worker's name: of our share
WITH news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, told, hash) VALUES ($1, $2, '', $4, $3::json, $5)
)
SELECT pg_notify('liveness_outbox', '')
