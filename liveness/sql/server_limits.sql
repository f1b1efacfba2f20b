-- What a session of our role begins with, before a transaction of ours sets its own; and whether it can write here.
-- Durations in milliseconds; one that this version does not know is NULL.
SELECT
    current_user::text AS role,
    current_setting('server_version_num')::integer / 10000 AS version,
    pg_is_in_recovery() AS standby,
    current_setting('default_transaction_read_only')::boolean AS read_only,
    max(s.reset_val::bigint) FILTER (WHERE s.name = 'statement_timeout') AS statement_timeout,
    max(s.reset_val::bigint) FILTER (WHERE s.name = 'transaction_timeout') AS transaction_timeout,
    max(s.reset_val::bigint) FILTER (WHERE s.name = 'idle_session_timeout') AS idle_session_timeout,
    max(s.reset_val::bigint) FILTER (WHERE s.name = 'deadlock_timeout') AS deadlock_timeout
FROM pg_settings AS s
WHERE s.name IN ('statement_timeout', 'transaction_timeout', 'idle_session_timeout', 'deadlock_timeout')
