-- liveness: in which trace an event was written, and a life ended, where OpenTelemetry is used.
-- compatible_from: 6
--
-- What is written in a transaction of a reclaim has it from that transaction's settings, so that no statement knows of
-- it, and a service that does not either, or collects no traces, writes none.

-- W3C trace context: 00-<trace id>-<span id>-<flags>; null where nobody collects. For an event, of the span in which it
-- was written: what publishes it comes later, and may be another process.
ALTER TABLE liveness.outbox ADD COLUMN traceparent text;
ALTER TABLE liveness.outbox ALTER COLUMN traceparent SET DEFAULT nullif(current_setting('liveness.traceparent', true), '');
-- Of the reclaim that ended the life: what finishes it later is told of as going on with it.
ALTER TABLE liveness.expiration ADD COLUMN traceparent text;
ALTER TABLE liveness.expiration
    ALTER COLUMN traceparent SET DEFAULT nullif(current_setting('liveness.traceparent', true), '');
