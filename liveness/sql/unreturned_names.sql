-- Which of these names have work that a reclaim fixed and has not put back yet? What its table refuses is not waited for.
-- $1: names
SELECT DISTINCT worker FROM liveness.remainder WHERE worker = ANY ($1::text[]) AND refused IS NULL
