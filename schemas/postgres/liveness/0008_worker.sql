-- liveness: a registry for hosts that have none.
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
