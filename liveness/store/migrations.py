"""The schema `liveness`: its numbered, forward-only migrations, and whether this version can work with what is there.

A migration file says in its header from which version of the schema on a service can work with it
(`compatible_from`), so that an older replica may go on while a newer schema is in place.
"""

import asyncio
import re
from collections.abc import Callable
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import asyncpg
import msgspec

from liveness.errors import CannotStartError, DatabaseAwayError
from liveness.store.database import Connection, Database, milliseconds
from liveness.work import quoted

# A statement of a migration takes what it takes: one that rewrites a table would be broken off in vain, at every try.
UNTIL_DONE_SECONDS = 30 * 86_400.0
# How long it waits for a lock: whoever writes the history waits behind it meanwhile, and gives up after lock_timeout, a
# second unless set otherwise. So it asks for less at a time, and lets them have their turn in between.
LOCK_SECONDS, REST_SECONDS = 0.5, 2.0
# Any number, the same for all: two that migrate at once take turns.
_LOCK = 6_155_231_907
_TRACK = """
    CREATE TABLE IF NOT EXISTS liveness.migration (
        version integer PRIMARY KEY,
        name text NOT NULL,
        compatible_from integer NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
# Who has held any of our tables longest, or migrates: the server does not say for whom a lock was waited in vain.
# $1: the lock of whoever migrates
_HOLDER = """
    SELECT
        l.pid, a.usename::text AS role, nullif(a.application_name, '') AS program, 'liveness.' || c.relname AS held,
        extract(epoch FROM clock_timestamp() - a.xact_start)::double precision AS age
    FROM pg_locks AS l
    LEFT JOIN pg_class AS c
        ON l.relation = c.oid AND c.relkind = 'r' AND c.relnamespace = to_regnamespace('liveness')
    LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
    WHERE l.granted
        AND l.pid IS DISTINCT FROM pg_backend_pid()
        AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
        AND (
            c.oid IS NOT NULL
            OR (l.locktype = 'advisory' AND l.objsubid = 1 AND (l.classid::bigint << 32 | l.objid::bigint) = $1)
        )
    ORDER BY c.oid IS NULL DESC, a.xact_start NULLS LAST
    LIMIT 1
"""
# Tables of ours that our role may not read: those that a migration by another role has added.
_UNREADABLE = """
    SELECT current_user::text AS role, array_agg(c.relname::text ORDER BY c.relname) AS names
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = 'liveness' AND c.relkind = 'r' AND NOT has_table_privilege(c.oid, 'SELECT')
"""


class Migration(msgspec.Struct, frozen=True):
    """One numbered file of DDL."""

    version: int
    name: str
    compatible_from: int
    statements: str


class Migrated(msgspec.Struct, frozen=True):
    """What `migrate` did: names of the migrations it applied, the version now, and of host tables it created."""

    applied: list[str]
    version: int
    host_tables: bool


def _folder(name: str) -> Traversable:
    # In a wheel the DDL lies inside the package, in a checkout beside it: it is published there for others to read.
    inside = resources.files("liveness") / "schemas" / "postgres" / name
    return inside if inside.is_dir() else Path(__file__).parents[2] / "schemas" / "postgres" / name


def known_migrations() -> list[Migration]:
    """Return the migrations that this version of liveness brings, in order."""
    found = []
    for file in sorted(_folder("liveness").iterdir(), key=lambda file: file.name):
        if match := re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name):
            text = file.read_text(encoding="utf-8")
            header = re.search(r"^-- compatible_from: (\d+)$", text, re.MULTILINE)
            if header is None:
                raise CannotStartError(f"{file.name} does not say compatible_from: this installation is damaged")
            found.append(Migration(int(match[1]), match[2], int(header[1]), text))
    return found


async def _state(connection: Connection) -> tuple[int, int]:
    """Return the version of the schema and from which version on a service can work with it; 0, 0 without one."""
    if await connection.fetchval("SELECT to_regclass('liveness.migration')") is None:
        return 0, 0
    row = await connection.fetchrow(
        "SELECT coalesce(max(version), 0) AS version, coalesce(max(compatible_from), 0) AS compatible_from"
        " FROM liveness.migration"
    )
    return (row["version"], row["compatible_from"]) if row else (0, 0)


async def check_schema(database: Database) -> None:
    """Raise CannotStartError unless this version of liveness can work with the schema as it is."""
    async with database.transaction() as connection:
        version, compatible_from = await _state(connection)
        rights = await connection.fetchrow(_UNREADABLE)
    ours = known_migrations()[-1].version
    if version < ours:
        found = f"is at version {version}, this liveness needs {ours}" if version else "has not been created"
        raise CannotStartError(f"the schema liveness {found}: run `liveness migrate`")
    if compatible_from > ours:
        raise CannotStartError(
            f"the schema liveness is at version {version} and needs a liveness that knows version {compatible_from}; "
            f"this one knows {ours}: upgrade liveness"
        )
    if rights is not None and rights["names"]:
        # Whoever migrated has made them, and is somebody else.
        role = quoted(rights["role"])
        raise CannotStartError(
            f"the role {rights['role']} may not read liveness.{', liveness.'.join(rights['names'])}: "
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA liveness TO {role};"
        )


async def migrate(
    database: Database, schema: str, *, host_tables: bool = False, on_wait: Callable[[str], None] = lambda _: None
) -> Migrated:
    """Bring the schema `liveness` up to date, and create the host's reference tables in `schema` if asked to.

    Idempotent; two at once take turns. Whoever holds our tables is waited for, a little at a time, so that reclaims are
    written in between; `on_wait` is told who that is. Raises CannotStartError for a schema that is newer than this
    version knows.
    """
    while True:
        try:
            return await _migrate(database, schema, host_tables=host_tables)
        except DatabaseAwayError as error:
            # It is one transaction, so nothing is there of what was tried.
            if not isinstance(error.__cause__, (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)):
                raise
        held = await database.fetch(_HOLDER, _LOCK)
        if held:
            on_wait(_holding(**dict(held[0])))
        await asyncio.sleep(REST_SECONDS)


def _holding(pid: int | None, role: str | None, program: str | None, held: str | None, age: float | None) -> str:
    if held is None:
        return f"another `liveness migrate` is at it (process {pid})"
    who = (
        "a prepared transaction" if pid is None else f"process {pid} ({program or 'no name'}, as {role or 'somebody'})"
    )
    return f"{held} is in use by {who}{'' if age is None else f', for {age:.0f} s'}"


async def _migrate(database: Database, schema: str, *, host_tables: bool) -> Migrated:
    migrations = known_migrations()
    applied = []
    async with database.transaction() as connection:
        await connection.execute(
            "SELECT set_config('lock_timeout', $1, true), set_config('statement_timeout', '0', true)",
            milliseconds(LOCK_SECONDS),
        )
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        version, _ = await _state(connection)
        if version > migrations[-1].version:
            raise CannotStartError(
                f"the schema liveness is at version {version}, newer than the {migrations[-1].version} that this "
                "liveness knows: upgrade liveness"
            )
        # Who owns the schema need not be allowed to make one, which Postgres would ask for even where it is there.
        if not await connection.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = 'liveness'"):
            await connection.execute("CREATE SCHEMA liveness")
        await connection.execute(_TRACK)
        for migration in migrations:
            if migration.version > version:
                await connection.execute(migration.statements, timeout=UNTIL_DONE_SECONDS)
                await connection.execute(
                    "INSERT INTO liveness.migration (version, name, compatible_from) VALUES ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.compatible_from,
                )
                applied.append(f"{migration.version:04d}_{migration.name}")
        if host_tables:
            for file in sorted(_folder("host").iterdir(), key=lambda file: file.name):
                text = file.read_text(encoding="utf-8")
                await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
                await connection.execute(text.replace("{schema}", quoted(schema)))
    return Migrated(applied=applied, version=migrations[-1].version, host_tables=host_tables)
