-- liveness: a registry for hosts that have none, and rows that their table refuses to put back.
-- compatible_from: 6
--
-- Where the settings describe tables of work and no table of workers, this one serves: every worker that beats gets a row
-- of its own. Of the same shape as the reference one of a host, so that all statements work on it unchanged.
CREATE TABLE liveness.worker (
    id                bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker_name       text        NOT NULL UNIQUE,
    status            text        NOT NULL DEFAULT 'ONLINE' CHECK (status IN ('ONLINE', 'OFFLINE', 'DEGRADED')),
    last_heartbeat_at timestamptz NOT NULL DEFAULT now(),
    created_at        timestamptz NOT NULL DEFAULT now()
);

-- Rows that their table refuses to put back: a constraint, a trigger, a right that it needs. `refused` says why; they are
-- tried again at `retry_at`, and `retry_after` seconds later each time. They are nobody's but the ended life's, and neither
-- the reclaim nor a new life of the name waits for them.
ALTER TABLE liveness.remainder ADD COLUMN refused text;
ALTER TABLE liveness.remainder ADD COLUMN retry_at timestamptz;
ALTER TABLE liveness.remainder ADD COLUMN retry_after double precision;
CREATE INDEX remainder_refused ON liveness.remainder (retry_at) WHERE refused IS NOT NULL;

CREATE OR REPLACE FUNCTION liveness.remainder_behind(
    of_work text, behind_worker text, behind_epoch bigint, behind_id text, at_most bigint
) RETURNS SETOF liveness.remainder
    LANGUAGE sql STABLE ROWS 2000
    SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off
    AS $$
        SELECT d.*
        FROM liveness.remainder AS d
        WHERE d.work = of_work AND d.refused IS NULL
            AND (d.worker, d.epoch, d.work, d.id) > (behind_worker, behind_epoch, of_work, behind_id)
        ORDER BY d.worker, d.epoch, d.work, d.id
        LIMIT at_most
    $$;

-- One row of those, refused or not; of the same form.
CREATE FUNCTION liveness.remainder_at(of_work text, of_worker text, of_epoch bigint, of_id text, at_most bigint)
    RETURNS SETOF liveness.remainder
    LANGUAGE sql STABLE ROWS 1
    AS $$
        SELECT d.*
        FROM liveness.remainder AS d
        WHERE d.work = of_work AND d.worker = of_worker AND d.epoch = of_epoch AND d.id = of_id
        LIMIT at_most
    $$;
