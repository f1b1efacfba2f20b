-- The host's tables as liveness expects them: a reference for the embedded mode and the tests. A real workflow server
-- has its own, with more columns; `liveness migrate` never touches those, and creates these only with --host-tables.

CREATE TABLE IF NOT EXISTS {schema}.worker (
    id                uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    -- Not unique: one row per organisation or per registration.
    worker_name       text        NOT NULL,
    status            text        NOT NULL DEFAULT 'ONLINE' CHECK (status IN ('ONLINE', 'OFFLINE', 'DEGRADED')),
    last_heartbeat_at timestamptz NOT NULL DEFAULT now(),
    created_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS worker_name_idx ON {schema}.worker (worker_name);

CREATE TABLE IF NOT EXISTS {schema}.workflow_execution (
    id         uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    kind       text        NOT NULL DEFAULT 'default',
    status     text        NOT NULL DEFAULT 'PENDING'
               CHECK (status IN ('PENDING', 'RUNNING', 'WAITING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    -- The NAME of the worker that holds it, not its id.
    worker_id  text,
    queue      text        NOT NULL DEFAULT 'default',
    version    bigint      NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS workflow_execution_owner_idx
    ON {schema}.workflow_execution (worker_id) WHERE status = 'RUNNING';
CREATE INDEX IF NOT EXISTS workflow_execution_pending_idx
    ON {schema}.workflow_execution (queue, created_at) WHERE status = 'PENDING';

CREATE TABLE IF NOT EXISTS {schema}.task_execution (
    id              uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    status          text        NOT NULL DEFAULT 'PENDING'
                    CHECK (status IN ('PENDING', 'RUNNING', 'COMPLETED', 'FAILED', 'CANCELLED')),
    worker_id       text,
    queue           text        NOT NULL DEFAULT 'default',
    execution_count integer     NOT NULL DEFAULT 0,
    max_retries     integer     NOT NULL DEFAULT 3,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS task_execution_owner_idx ON {schema}.task_execution (worker_id) WHERE status = 'RUNNING';
