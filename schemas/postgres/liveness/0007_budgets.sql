-- liveness: which deaths may be the work's doing, and to which work they were put down.
-- compatible_from: 6
--
-- A service of before writes deaths that count against nobody, and puts back what this one would set aside.

-- Whether what the life was working on may have ended it. A release, an operator and a storm do not count.
ALTER TABLE liveness.expiration ADD COLUMN crash boolean NOT NULL DEFAULT false;
-- {kind of work: id}: the piece of work that was set aside for this death, among others. It explains the death, which
-- from then on counts against nothing else of that kind.
ALTER TABLE liveness.expiration ADD COLUMN killers jsonb;

-- The same of the history's rows, so that a death is counted where it is read: of reclaims that ended no life, too.
ALTER TABLE liveness.reclaim ADD COLUMN crash boolean NOT NULL DEFAULT false;
-- What became of the work, where it did not go back: `quarantined` (it kept killing its workers), `exhausted` (its own
-- attempts were used up).
ALTER TABLE liveness.reclaim ADD COLUMN outcome text;
