-- Forget doubts that are over, where no registry row is ever marked for one.
-- $1: names
DELETE FROM liveness.doubt WHERE over_at IS NOT NULL AND worker = ANY ($1::text[])
