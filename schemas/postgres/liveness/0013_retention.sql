-- liveness: what is old can be forgotten: a key for the history, by which rows go, and in what order they came.
-- compatible_from: 6
--
-- Without a key a table in a publication (FOR ALL TABLES, as change data capture likes to have it) refuses every DELETE.
-- The former key of four columns was dearer to write than the host's rows (0006); a number that grows costs least.
-- Locks: liveness.reclaim against everything while it is rewritten, with its indexes, and liveness.expiration and
-- liveness.leak against writing while an index is made. Reclaims wait that long, and nothing of the host's does.
ALTER TABLE liveness.reclaim ADD COLUMN seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY;

-- What is oldest, without a look at what is not.
CREATE INDEX expiration_time ON liveness.expiration (expired_at, worker, epoch);
CREATE INDEX leak_time ON liveness.leak (found_at);

-- One row: before which moment anything may have been forgotten, so that nobody is told that it never was. NULL: none.
CREATE TABLE liveness.retention (
    one              boolean     PRIMARY KEY DEFAULT true CHECK (one),
    forgotten_before timestamptz
);
INSERT INTO liveness.retention DEFAULT VALUES;
