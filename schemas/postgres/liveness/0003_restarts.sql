-- liveness: the restarts that nobody recovered from yet.
-- compatible_from: 2
--
-- Finds the names whose last life was ended by a restart a moment ago, however many names never came back in the years
-- before. A service that does not look for them works as well.
CREATE INDEX expiration_restarted_recently ON liveness.expiration (expired_at)
    WHERE reason = 'restarted' AND recovered_at IS NULL;
