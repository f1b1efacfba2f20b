-- liveness: the events of one reclaim of one life in a parcel, and a history that is cheap to write.
-- compatible_from: 6
--
-- A thousand workers that die at once leave 100,000 events. Nearly all of such an event is the same for all that one
-- life held, so it is stored once: a row of the outbox is one event, or a parcel of them.

-- A service that does not know parcels would publish one as an event: it finds no column of that name and publishes
-- nothing.
ALTER TABLE liveness.outbox RENAME COLUMN data TO told;
-- NULL: the row is one event, and `told` its data. Else a parcel, of one event for each item: items is
-- [[id of the work, kind, queue, reclaim_count], ...], `told` what their data have in common, and `subject` the key under
-- which an event's data name the work. The id of each is made of the parcel's and its place in it.
ALTER TABLE liveness.outbox ADD COLUMN items json;
-- How many events the row is.
ALTER TABLE liveness.outbox ADD COLUMN events integer NOT NULL DEFAULT 1;

-- The history is read by the work's id, and by life. To write it under the former key of four columns, and its second
-- index, took as much processor time as the UPDATE of the host's rows; a hash of the id, and the time, take less. That
-- nothing goes back twice for one life is the epoch's row's to see to, which is locked by whoever ends it, and the
-- remainder's.
ALTER TABLE liveness.reclaim DROP CONSTRAINT reclaim_pkey;
CREATE INDEX reclaim_work ON liveness.reclaim USING hash (id);
-- What belongs to one life was written between its expiration's expired_at and finished_at.
DROP INDEX liveness.reclaim_life;
CREATE INDEX reclaim_time ON liveness.reclaim USING brin (reclaimed_at) WITH (pages_per_range = 32);
