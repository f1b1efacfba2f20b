-- How our session came here: from which address (NULL: by a socket of this machine), and whether over TLS.
SELECT
    host(inet_client_addr()) AS client,
    EXISTS (SELECT FROM pg_stat_ssl AS s WHERE s.pid = pg_backend_pid() AND s.ssl) AS encrypted
