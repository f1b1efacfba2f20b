-- liveness: the pause: an operator's word that nothing is to be taken, which Postgres itself keeps.
-- compatible_from: 6
--
-- Every reclaim, of whatever kind and of whatever version of the service, writes into liveness.expiration or
-- liveness.reclaim in the transaction that takes something. So triggers there keep all of them from it: a service of
-- before, too, which takes it for a refusal, and tries again until it goes through.
-- Locks: liveness.expiration and liveness.reclaim against writing, for moments; neither is read or rewritten.

-- One row, always; `paused_at` is NULL while nothing is paused. To pause takes two transactions:
--   the first one writes it, which changes no key: it waits for nobody, and whoever begins behind it finds it;
--   the second one changes the key, so it waits for all who had looked before and hold FOR KEY SHARE until they commit.
--   One that looked before and has not locked yet finds the key changed, and looks again.
-- When the second has committed, whatever commits from then on has taken nothing.
CREATE TABLE liveness.pause (
    turn       bigint      PRIMARY KEY,
    paused_at  timestamptz,
    -- When it ends by itself; NULL: when somebody resumes.
    ends_at    timestamptz,
    paused_by  text,
    why        text,
    resumed_at timestamptz,
    resumed_by text
);
CREATE UNIQUE INDEX pause_only_one ON liveness.pause ((true));
INSERT INTO liveness.pause (turn) VALUES (0);

-- Without its row nothing would be taken ever again.
CREATE FUNCTION liveness.keep_pause() RETURNS trigger
    LANGUAGE plpgsql
    AS $$ BEGIN RAISE EXCEPTION 'the row of liveness.pause has to stay'; END $$;
CREATE TRIGGER pause_stays BEFORE DELETE OR TRUNCATE ON liveness.pause
    FOR EACH STATEMENT EXECUTE FUNCTION liveness.keep_pause();

-- It belongs to whoever migrates, so that a role which may only act needs no rights of its own to the new table.
CREATE FUNCTION liveness.obey_pause() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            PERFORM FROM liveness.pause WHERE paused_at IS NULL OR ends_at <= clock_timestamp() FOR KEY SHARE;
            IF NOT FOUND THEN
                RAISE EXCEPTION USING
                    ERRCODE = 'LV001',
                    MESSAGE = (
                        SELECT format(
                            'paused by %s since %s%s', p.paused_by,
                            to_char(p.paused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), ': ' || p.why
                        )
                        FROM liveness.pause AS p
                    );
            END IF;
            RETURN NULL;
        END
    $$;
CREATE TRIGGER expiration_obeys_pause BEFORE INSERT ON liveness.expiration
    FOR EACH STATEMENT EXECUTE FUNCTION liveness.obey_pause();
CREATE TRIGGER reclaim_obeys_pause BEFORE INSERT ON liveness.reclaim
    FOR EACH STATEMENT EXECUTE FUNCTION liveness.obey_pause();
