-- What a session of our role begins with, before a transaction of ours sets its own; and whether it can write here.
-- Durations in milliseconds; one that this version does not know is NULL. Connections: the fewest that role and database
-- allow; NULL where neither says, and for a superuser, who is not held to it.
SELECT
    current_user::text AS role,
    current_setting('server_version_num')::integer / 10000 AS version,
    pg_is_in_recovery() AS standby,
    (
        SELECT least(nullif(r.rolconnlimit, -1), nullif(d.datconnlimit, -1))
        FROM pg_roles AS r, pg_database AS d
        WHERE r.rolname = current_user AND NOT r.rolsuper AND d.datname = current_database()
    ) AS connections,
    current_setting('default_transaction_read_only')::boolean AS read_only,
    max(s.reset_val::bigint) FILTER (WHERE s.name = 'statement_timeout') AS statement_timeout,
    max(s.reset_val::bigint) FILTER (WHERE s.name = 'transaction_timeout') AS transaction_timeout,
    max(s.reset_val::bigint) FILTER (WHERE s.name = 'idle_session_timeout') AS idle_session_timeout,
    max(s.reset_val::bigint) FILTER (WHERE s.name = 'deadlock_timeout') AS deadlock_timeout
FROM pg_settings AS s
WHERE s.name IN ('statement_timeout', 'transaction_timeout', 'idle_session_timeout', 'deadlock_timeout')
