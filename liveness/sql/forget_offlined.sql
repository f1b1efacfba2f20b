-- Give up setting registry rows back that the registry refuses to take back.
-- $1: name
UPDATE liveness.expiration SET offlined = NULL WHERE worker = $1 AND offlined IS NOT NULL AND recovered_at IS NOT NULL
