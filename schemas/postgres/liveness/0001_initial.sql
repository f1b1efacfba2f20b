-- liveness: epochs, expirations with their evidence, the history of reclaims, the outbox.
-- compatible_from: 1
--
-- Work is named as (work text, id text), so that any table fits. Times are this database's.

-- One row for each life of a name that we knew. At most one life of a name is open, and its row is the lock: whoever
-- wants to end it, or to grant the next one, meets the others here.
CREATE TABLE liveness.epoch (
    worker      text             NOT NULL,
    epoch       bigint           NOT NULL,
    incarnation text,
    ttl         double precision NOT NULL,
    term        bigint           NOT NULL DEFAULT 0,
    granted_at  timestamptz      NOT NULL DEFAULT now(),
    ended_at    timestamptz,
    PRIMARY KEY (worker, epoch)
);
CREATE UNIQUE INDEX epoch_open ON liveness.epoch (worker) WHERE ended_at IS NULL;
-- Finds names that differ from another only in case.
CREATE INDEX epoch_open_folded ON liveness.epoch (lower(worker)) WHERE ended_at IS NULL;

-- The number of a name's next life. It grows for each name, and is at least the milliseconds since 1970, so that a
-- database restored from a backup does not issue numbers again that were in use after the backup was made.
CREATE FUNCTION liveness.next_epoch(name text) RETURNS bigint
    LANGUAGE sql VOLATILE
    AS $$
        SELECT greatest(
            (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
            (SELECT max(e.epoch) + 1 FROM liveness.epoch AS e WHERE e.worker = name)
        )
    $$;

-- Why an epoch ended. Written in the transaction that ends it.
CREATE TABLE liveness.expiration (
    worker            text             NOT NULL,
    epoch             bigint           NOT NULL,
    incarnation       text,
    reason            text             NOT NULL,
    ttl               double precision NOT NULL,
    last_heartbeat_at timestamptz,
    lapsed_at         timestamptz,
    expired_at        timestamptz      NOT NULL DEFAULT now(),
    -- Seconds that a row must have been untouched to count as this life's; NULL: every RUNNING row of the name does.
    untouched_for     double precision,
    -- Decided and recorded in mode `observe`: the host's tables were left as they were.
    observed          boolean          NOT NULL DEFAULT false,
    decided_by        text             NOT NULL,
    transaction_id    bigint           NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    evidence          jsonb            NOT NULL,
    -- {id: former status} of the host's worker rows that we set OFFLINE and have not set back.
    offlined          jsonb,
    -- When the last of its work was back and the host's worker rows were marked; NULL: there is more to do.
    finished_at       timestamptz,
    -- When the name was heard again.
    recovered_at      timestamptz,
    PRIMARY KEY (worker, epoch),
    FOREIGN KEY (worker, epoch) REFERENCES liveness.epoch
);
CREATE INDEX expiration_unfinished ON liveness.expiration (expired_at) WHERE finished_at IS NULL;
CREATE INDEX expiration_unrecovered ON liveness.expiration (worker) WHERE recovered_at IS NULL;
CREATE INDEX expiration_owing ON liveness.expiration (worker) WHERE offlined IS NOT NULL AND recovered_at IS NOT NULL;

-- What is left of a reclaim after its first chunk: which rows were that life's, fixed in the transaction that ended it.
-- `mark` is the row's xmin at that moment; a row with another one has been touched since and is left alone.
CREATE TABLE liveness.remainder (
    worker text   NOT NULL,
    epoch  bigint NOT NULL,
    work   text   NOT NULL,
    id     text   NOT NULL,
    mark   text   NOT NULL,
    PRIMARY KEY (worker, epoch, work, id)
);

-- The next rows of one kind of work behind a place, in the order of the primary key. A function of its own, because what
-- is left was written a moment ago: Postgres has no statistics of it yet, and would read and sort it all for every
-- chunk if it was not told to use the key.
CREATE FUNCTION liveness.remainder_behind(
    of_work text, behind_worker text, behind_epoch bigint, behind_id text, at_most bigint
) RETURNS SETOF liveness.remainder
    LANGUAGE sql STABLE ROWS 2000
    SET enable_sort = off SET enable_seqscan = off SET enable_bitmapscan = off
    AS $$
        SELECT d.*
        FROM liveness.remainder AS d
        WHERE d.work = of_work
            AND (d.worker, d.epoch, d.work, d.id) > (behind_worker, behind_epoch, of_work, behind_id)
        ORDER BY d.worker, d.epoch, d.work, d.id
        LIMIT at_most
    $$;

-- The history: one row for each piece of work that went back.
CREATE TABLE liveness.reclaim (
    work          text        NOT NULL,
    id            text        NOT NULL,
    worker        text        NOT NULL,
    epoch         bigint      NOT NULL,
    reclaim_count integer     NOT NULL,
    observed      boolean     NOT NULL DEFAULT false,
    reclaimed_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (work, id, worker, epoch)
);
CREATE INDEX reclaim_life ON liveness.reclaim (worker, epoch);

-- Events that are committed and not yet known to be published. `seq` is drawn while the epoch's row is locked, so its
-- order is the order of commits for each worker (not across workers). `id` is the event's for ever: random, so that a
-- database restored from a backup does not use it again.
CREATE TABLE liveness.outbox (
    seq            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id             uuid        NOT NULL DEFAULT gen_random_uuid(),
    type           text        NOT NULL,
    subject        text        NOT NULL,
    worker         text        NOT NULL,
    observed       boolean     NOT NULL DEFAULT false,
    transaction_id bigint      NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    created_at     timestamptz NOT NULL DEFAULT now(),
    data           json        NOT NULL
);

-- An instant as the events show it: RFC 3339, UTC, microseconds.
CREATE FUNCTION liveness.rfc3339(instant timestamptz) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE STRICT
    AS $$ SELECT to_char(instant AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') $$;
