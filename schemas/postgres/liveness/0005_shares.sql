-- liveness: shares of the workers, each with its own leader.
-- compatible_from: 2
--
-- A service of before owns everybody, writes no hashes, and leads the one row of `leader`. It may go on, and is kept from
-- leading beside the leaders of shares as they are kept from leading beside it.

-- The NATS servers' hash of the subject on which the worker beats: modulo the number of shares, that is whose it is. NULL
-- where a service of before wrote the row.
ALTER TABLE liveness.epoch ADD COLUMN hash bigint;
ALTER TABLE liveness.outbox ADD COLUMN hash bigint;

-- One row for each share that was ever led ('index/count'); for what its key is good see 0002.
CREATE TABLE liveness.share_leader (
    share      text        NOT NULL,
    shares     integer     NOT NULL,
    term       bigint      NOT NULL,
    holder     text,
    renewed_at timestamptz NOT NULL,
    PRIMARY KEY (share, term)
);
CREATE UNIQUE INDEX share_leader_one_each ON liveness.share_leader (share);
CREATE TRIGGER share_leader_stays BEFORE DELETE OR TRUNCATE ON liveness.share_leader
    FOR EACH STATEMENT EXECUTE FUNCTION liveness.keep_leader();

-- Who leads where the workers are not divided into so many shares (0: not at all), or NULL. A leader that was not seen
-- for 10 s leads no more: whatever its leader_timeout, it renews every 2 s or more often (`leadership.py`), and a person
-- who divides the workers anew does not wait longer.
-- All three belong to whoever migrates, so that a role which may only act needs no rights of its own to the new table.
CREATE FUNCTION liveness.others_lead(of_shares integer, acts boolean) RETURNS text
    LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT min(l.holder || ' (shard ' || l.share || ')')
        FROM (
            SELECT holder, renewed_at, share, shares FROM liveness.share_leader
            UNION ALL SELECT holder, renewed_at, 'none', 0 FROM liveness.leader
        ) AS l
        WHERE l.shares <> of_shares AND NOT (acts AND l.holder LIKE 'observing %')
            AND l.renewed_at BETWEEN clock_timestamp() - interval '10 s' AND clock_timestamp() + interval '10 s'
    $$;

-- Nobody begins a term while others lead who divide the workers otherwise; and whoever does ends the terms of those that
-- were not seen for long. He needs the rows of all of them, FOR UPDATE, which nobody has while anything is under way in
-- one, be it under a term that was released since. Whoever takes the lead holds a row of his own and comes for the
-- others', so they must not wait for each other: who does not get them at once has failed (lock_not_available, as after
-- waiting for his own), and tries again.
CREATE FUNCTION liveness.lead_alone() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            IF liveness.others_lead(0, NEW.holder NOT LIKE 'observing %') IS NOT NULL THEN
                RETURN NULL;
            END IF;
            PERFORM FROM liveness.share_leader FOR UPDATE NOWAIT;
            UPDATE liveness.share_leader SET term = term + 1, holder = NULL, renewed_at = '-infinity'
            WHERE holder IS NOT NULL;
            RETURN NEW;
        END
    $$;
CREATE TRIGGER leader_alone BEFORE UPDATE OF term ON liveness.leader
    FOR EACH ROW WHEN (NEW.holder IS NOT NULL) EXECUTE FUNCTION liveness.lead_alone();

CREATE FUNCTION liveness.lead_share() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            -- One after the other: what is looked at below must not change before this commits.
            PERFORM FROM liveness.leader FOR NO KEY UPDATE;
            IF liveness.others_lead(NEW.shares, NEW.holder NOT LIKE 'observing %') IS NOT NULL THEN
                RETURN NULL;
            END IF;
            PERFORM FROM liveness.leader FOR UPDATE NOWAIT;
            PERFORM FROM liveness.share_leader WHERE shares <> NEW.shares FOR UPDATE NOWAIT;
            UPDATE liveness.leader SET term = term + 1, holder = NULL, renewed_at = '-infinity'
            WHERE holder IS NOT NULL;
            UPDATE liveness.share_leader SET term = term + 1, holder = NULL, renewed_at = '-infinity'
            WHERE holder IS NOT NULL AND shares <> NEW.shares;
            RETURN NEW;
        END
    $$;
CREATE TRIGGER share_leader_alone BEFORE UPDATE OF term ON liveness.share_leader
    FOR EACH ROW WHEN (NEW.holder IS NOT NULL) EXECUTE FUNCTION liveness.lead_share();
