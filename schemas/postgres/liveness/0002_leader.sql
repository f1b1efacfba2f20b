-- liveness: who acts.
-- compatible_from: 2
--
-- A service that knows no terms would act beside the leader, so none that is older than this may start.

-- One row, always. Its key is the term, and that makes the difference between the two ways to change the row:
--   a renewal changes no key and takes FOR NO KEY UPDATE;
--   a takeover changes the key and takes FOR UPDATE;
--   whatever acts holds FOR KEY SHARE on its own term until it commits.
-- Postgres lets the first pass beside the third and the second not: renewals never wait for what is under way, a
-- takeover does, and what begins after a takeover finds its term gone.
CREATE TABLE liveness.leader (
    term       bigint      PRIMARY KEY,
    -- host:pid, for people; NULL: nobody leads.
    holder     text,
    renewed_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX leader_only_one ON liveness.leader ((true));
INSERT INTO liveness.leader (term, holder, renewed_at) VALUES (0, NULL, '-infinity');

-- Without its row nobody could lead ever again, and one made anew would issue its terms twice.
CREATE FUNCTION liveness.keep_leader() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'the row of liveness.leader has to stay'; END $$;
CREATE TRIGGER leader_stays BEFORE DELETE OR TRUNCATE ON liveness.leader
    FOR EACH STATEMENT EXECUTE FUNCTION liveness.keep_leader();

-- Finds the former incarnations of a name that restarted.
CREATE INDEX expiration_restarted ON liveness.expiration (worker, epoch) WHERE reason = 'restarted';

-- A service of before knows no terms: an epoch that it would issue beside a leader is refused.
ALTER TABLE liveness.epoch ALTER COLUMN term DROP DEFAULT;
