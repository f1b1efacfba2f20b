-- The two roles of liveness, with what each needs and nothing else.
--
--   psql -d flow -f role.sql                                            as a superuser
--   psql -d flow -f role.sql -v host_schema=app -v service=sidecar      with other names
--
-- It can be run again: after the workflow server's tables have changed, and to put an installation under these roles whose
-- schema `liveness` belongs to another one so far. Then, once and before each new version:
--
--   \password liveness_owner      and      \password liveness
--   liveness migrate --postgres-dsn 'postgresql://liveness_owner@db/flow?passfile=...'
--
-- `liveness serve` logs in as `liveness`, and `liveness check` as the same says what is missing. Tables other than the
-- built-in ones get their grants from there, too: docs/postgres.md.
\set ON_ERROR_STOP on
\if :{?owner} \else \set owner liveness_owner \endif
\if :{?service} \else \set service liveness \endif
\if :{?host_schema} \else \set host_schema public \endif

BEGIN;
SET LOCAL search_path = pg_catalog;
SET LOCAL client_min_messages = warning;

-- Owns the schema `liveness`, and makes what is in it. Nothing runs as this role but `liveness migrate`.
SELECT format('CREATE ROLE %I LOGIN', :'owner') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'owner') \gexec
-- What the service is. A role that is there already keeps what it is a member of: \du shows that.
SELECT format('CREATE ROLE %I LOGIN', :'service') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'service')
\gexec
ALTER ROLE :"service" NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;
SELECT format('GRANT CONNECT ON DATABASE %I TO %I, %I', current_database(), :'owner', :'service') \gexec

-- Our own schema: the service reads and writes its rows, and can neither make, change nor empty its tables.
CREATE SCHEMA IF NOT EXISTS liveness;
ALTER SCHEMA liveness OWNER TO :"owner";
SELECT format('ALTER TABLE %s OWNER TO %I', c.oid::regclass, :'owner')
FROM pg_class AS c
WHERE c.relnamespace = 'liveness'::regnamespace AND c.relkind IN ('r', 'p') AND pg_get_userbyid(c.relowner) <> :'owner'
\gexec
SELECT format('ALTER FUNCTION %s OWNER TO %I', f.oid::regprocedure, :'owner')
FROM pg_proc AS f
WHERE f.pronamespace = 'liveness'::regnamespace AND pg_get_userbyid(f.proowner) <> :'owner'
\gexec
REVOKE ALL ON SCHEMA liveness FROM :"service", PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA liveness FROM :"service", PUBLIC;
GRANT USAGE ON SCHEMA liveness TO :"service";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA liveness TO :"service";
-- What later migrations add.
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA liveness
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"service";

-- The workflow server's tables: of each, the columns that the service reads, and those that it writes. It sees no other:
-- no payload, no result. Which optional ones there are is looked up. xmin tells whether a row was changed since.
GRANT USAGE ON SCHEMA :"host_schema" TO :"service";
SELECT format('REVOKE ALL ON %I.%I FROM %I', :'host_schema', c.relname, :'service')
FROM pg_class AS c
WHERE c.relnamespace = (SELECT n.oid FROM pg_namespace AS n WHERE n.nspname = :'host_schema')
    AND c.relname IN ('worker', 'workflow_execution', 'task_execution')
\gexec
SELECT format(
    'GRANT %s (%s) ON %I.%I TO %I',
    n.privilege, string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum), :'host_schema', n.name, :'service'
)
FROM (
    VALUES
        ('worker', 'SELECT', '{id,worker_name,status,last_heartbeat_at}'::text[]),
        ('worker', 'UPDATE', '{status,last_heartbeat_at}'),
        -- With register_unknown_workers alone:
        -- ('worker', 'INSERT', '{worker_name,status,last_heartbeat_at}'),
        ('workflow_execution', 'SELECT', '{id,status,worker_id,updated_at,queue,kind,version,xmin}'),
        -- The column `error`, if there is one, is written with crash_action = "quarantine" alone.
        ('workflow_execution', 'UPDATE', '{status,worker_id,version,updated_at}'),
        ('task_execution', 'SELECT', '{id,status,worker_id,updated_at,queue,kind,version,xmin}'),
        ('task_execution', 'UPDATE', '{status,worker_id,version,updated_at}')
) AS n (name, privilege, columns)
JOIN pg_class AS c ON c.relname = n.name
JOIN pg_namespace AS s ON s.oid = c.relnamespace AND s.nspname = :'host_schema'
JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = ANY (n.columns) AND NOT a.attisdropped
GROUP BY n.name, n.privilege
\gexec

COMMIT;
