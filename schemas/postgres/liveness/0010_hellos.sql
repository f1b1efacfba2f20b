-- liveness: how old a process was at its newest hello, so that a goodbye from before that is told by a service that has
-- not heard it.
-- compatible_from: 6
--
-- A service that does not know it writes none, and what it grants is ended by a goodbye that comes late.

-- Seconds, by the process' own count, as its hello stated them; null where it said none, or stated none.
ALTER TABLE liveness.epoch ADD COLUMN hello_uptime double precision;
