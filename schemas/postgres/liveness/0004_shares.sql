-- liveness: shares of the workers, each with its own leader.
-- compatible_from: 2
--
-- A service that knows no shares leads the share '', which is everybody, and may go on while there are no others.

-- The index of the share, of `shares`, to which the worker belongs that beats on `subject`: the hash by which the NATS
-- servers divide the heartbeats (FNV-1a, 32 bits, of the subject's bytes).
CREATE FUNCTION liveness.share_of(subject text, shares integer) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE STRICT COST 1000
    AS $$
        DECLARE
            bytes bytea := convert_to(subject, 'UTF8');
            hash bigint := 2166136261;
        BEGIN
            FOR i IN 0 .. length(bytes) - 1 LOOP
                hash := ((hash # get_byte(bytes, i)) * 16777619) & 4294967295;
            END LOOP;
            RETURN hash % shares;
        END
    $$;

-- One row for each share ('index/count'), always; for what its key is good see 0002.
ALTER TABLE liveness.leader ADD COLUMN share text NOT NULL DEFAULT '';
DROP INDEX liveness.leader_only_one;
ALTER TABLE liveness.leader DROP CONSTRAINT leader_pkey, ADD PRIMARY KEY (share, term);
CREATE UNIQUE INDEX leader_one_each ON liveness.leader (share);
