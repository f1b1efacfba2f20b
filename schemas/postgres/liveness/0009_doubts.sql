-- liveness: what is held against lives that go on, and rows that their workers say they do not run.
-- compatible_from: 6
--
-- A service that knows neither works as well; where it marks a row OFFLINE that was set DEGRADED by one that does, it
-- sets it back to that, and the next service that does sets it ONLINE.

-- One row while a worker is suspected, and one while it is wedged: told once, whichever replica comes to lead.
CREATE TABLE liveness.doubt (
    worker    text        NOT NULL,
    -- suspected or wedged.
    kind      text        NOT NULL,
    epoch     bigint      NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now(),
    -- Where it stood still; of the wedged.
    progress  bigint,
    -- What was told of it.
    told      json        NOT NULL,
    -- Ids of the host's worker rows that we set DEGRADED and have not set back.
    degraded  text[]      NOT NULL DEFAULT '{}',
    -- It was taken back, or its life is over; the row stays for what is still to be set back.
    over_at   timestamptz,
    hash      bigint,
    PRIMARY KEY (worker, kind)
);

-- Each row that leaked, once: told of, or put back. A row that was touched since and leaks again is another.
CREATE TABLE liveness.leak (
    work           text        NOT NULL,
    id             text        NOT NULL,
    worker         text        NOT NULL,
    epoch          bigint      NOT NULL,
    -- The row's xmin, by which it was known to be the same all the time.
    mark           text        NOT NULL,
    incarnation    text,
    reclaimed      boolean     NOT NULL,
    observed       boolean     NOT NULL DEFAULT false,
    found_at       timestamptz NOT NULL DEFAULT now(),
    decided_by     text        NOT NULL,
    transaction_id bigint      NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    evidence       jsonb       NOT NULL,
    PRIMARY KEY (work, id, worker, epoch, mark)
);
