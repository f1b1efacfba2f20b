-- An event that concerns no worker. Wakes the relay when it is committed.
-- $1: type  $2: subject  $3: data  $4: observed
WITH news AS (
    INSERT INTO liveness.outbox (type, subject, worker, observed, data) VALUES ($1, $2, '', $4, $3::json)
)
SELECT pg_notify('liveness_outbox', '')
