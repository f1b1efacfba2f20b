-- Forget events that the stream has acknowledged.
-- $1: seqs
DELETE FROM liveness.outbox WHERE seq = ANY ($1::bigint[])
