"""The schema `liveness`: created, upgraded, refused."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from liveness.errors import CannotStartError, DatabaseAwayError
from liveness.settings import Settings
from liveness.store import Database, Store, migrate, migrations
from liveness.store.migrations import known_migrations
from tests.conftest import SOON

OURS = known_migrations()[-1].version
# It rewrites the history.
HISTORY_KEY = 13


@pytest.fixture
async def database(empty_dsn: str) -> Any:
    """An empty database."""
    opened = Database(empty_dsn)
    await opened.connect()
    yield opened
    await opened.close()


async def test_migrating_twice_changes_nothing(database: Database) -> None:
    """The second time there is nothing to do."""
    first = await migrate(database, "public")
    second = await migrate(database, "public")

    assert first.applied == [f"{one.version:04d}_{one.name}" for one in known_migrations()]
    assert second.applied == []


async def test_two_that_migrate_at_once_take_turns(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One applies, the others find it done."""
    monkeypatch.setattr(migrations, "REST_SECONDS", 0.05)
    databases = [Database(empty_dsn) for _ in range(4)]

    done = await asyncio.gather(*(migrate(one, "public", host_tables=True) for one in databases))
    for one in databases:
        await one.close()

    assert sorted(len(one.applied) for one in done) == [0, 0, 0, len(known_migrations())]


def test_what_an_older_service_rests_on_is_changed_only_where_that_is_said() -> None:
    """Elsewhere it goes on beside newer ones: nothing is taken away, and nothing demanded that it does not write."""
    takes = re.compile(
        r"\bRENAME\b|\bDROP\b|\bSET NOT NULL\b|\bALTER COLUMN \w+ (SET DATA )?TYPE\b|\bADD (CONSTRAINT|CHECK)\b"
        r"|\bADD COLUMN [^,;]*\bNOT NULL\b(?![^,;]*\bDEFAULT\b)"
    )

    for one in known_migrations():
        statements = re.sub("--.*", "", one.statements)
        assert one.compatible_from == one.version or takes.search(statements) is None, one.name


async def test_a_migration_that_fails_leaves_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one transaction."""
    broken = migrations.Migration(99, "broken", 1, "CREATE TABLE liveness.half (); SELECT nonsense")
    monkeypatch.setattr(migrations, "known_migrations", lambda: [*known_migrations(), broken])

    with pytest.raises(Exception, match="nonsense"):
        await migrate(database, "public")

    rows = await database.fetch("SELECT to_regclass('liveness.migration') AS found")
    assert rows[0]["found"] is None


async def test_who_reads_the_history_is_waited_for_and_named_and_reclaims_go_on_meanwhile(
    database: Database, empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup reads for an hour; a lock that is queued for all that time would keep everything from being written."""
    monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.05)
    monkeypatch.setattr(migrations, "REST_SECONDS", 0.05)
    before = [one for one in known_migrations() if one.version < HISTORY_KEY]
    with monkeypatch.context() as older:
        older.setattr(migrations, "known_migrations", lambda: before)
        await migrate(database, "public")
    backup = await asyncpg.connect(empty_dsn, server_settings={"application_name": "pg_dump"})
    reading = backup.transaction()
    await reading.start()
    await backup.execute("SELECT FROM liveness.reclaim")
    told: asyncio.Queue[str] = asyncio.Queue()

    migrating = asyncio.create_task(migrate(database, "public", on_wait=told.put_nowait))
    async with asyncio.timeout(SOON):
        said = await told.get()
        # As a reclaim does, between two tries.
        await database.fetch("DELETE FROM liveness.reclaim")
        await reading.rollback()
        done = await migrating
    await backup.close()

    assert re.fullmatch(r"liveness\.reclaim is in use by process \d+ \(pg_dump, as \w+\), for \d+ s", said)
    assert len(done.applied) == len(known_migrations()) - len(before)


async def test_host_tables_are_created_only_when_asked_for(database: Database) -> None:
    """And what is there is left as it is."""
    await migrate(database, "flow")
    rows = await database.fetch("SELECT to_regclass('flow.worker') AS found")
    assert rows[0]["found"] is None
    await migrate(database, "flow", host_tables=True)
    await database.fetch("INSERT INTO flow.worker (worker_name) VALUES ('w1')")

    await migrate(database, "flow", host_tables=True)

    rows = await database.fetch("SELECT count(*) AS workers FROM flow.worker")
    assert rows[0]["workers"] == 1


async def test_a_newer_schema_is_not_migrated(database: Database) -> None:
    """An old `migrate` refuses, naming both versions."""
    await migrate(database, "public")
    await database.fetch("INSERT INTO liveness.migration (version, name, compatible_from) VALUES (77, 'later', 1)")

    with pytest.raises(CannotStartError, match=f"version 77, newer than the {OURS}"):
        await migrate(database, "public")


@pytest.mark.parametrize(("compatible_from", "works"), [(OURS, True), (OURS + 1, False)])
async def test_a_newer_schema_is_served_if_it_says_so(
    dsn: str,
    settings: Callable[..., Settings],
    compatible_from: int,
    works: bool,  # noqa: FBT001
) -> None:
    """A replica may stay while a newer one has migrated, as long as the schema is compatible with it."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "INSERT INTO liveness.migration (version, name, compatible_from) VALUES ($1, 'later', $2)",
        OURS + 1,
        compatible_from,
    )
    await connection.close()
    database = Database(dsn)

    try:
        if works:
            await Store.open(database, settings())
        else:
            with pytest.raises(CannotStartError, match="upgrade liveness"):
                await Store.open(database, settings())
    finally:
        await database.close()


async def test_a_service_that_knows_no_terms_does_not_start_beside_those_that_do(
    dsn: str, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would act without asking who leads."""
    old = [one for one in known_migrations() if one.version == 1]
    monkeypatch.setattr(migrations, "known_migrations", lambda: old)
    database = Database(dsn)

    with pytest.raises(CannotStartError, match="knows 1: upgrade liveness"):
        await Store.open(database, settings())
    await database.close()


async def test_tables_that_another_role_has_added_are_named_with_the_grant(
    dsn: str, settings: Callable[..., Settings]
) -> None:
    """At the start, and not at the first reclaim, which would never mark its worker."""
    connection = await asyncpg.connect(dsn)
    database = Database(dsn.replace("postgres@", "granted_once@"))
    await connection.execute(
        "DROP ROLE IF EXISTS granted_once; CREATE ROLE granted_once LOGIN;"
        " GRANT USAGE ON SCHEMA liveness TO granted_once;"
        " GRANT ALL ON ALL TABLES IN SCHEMA liveness, public TO granted_once;"
        " REVOKE ALL ON liveness.doubt, liveness.leak FROM granted_once"
    )
    try:
        with pytest.raises(CannotStartError, match=r"may not read liveness\.doubt, liveness\.leak: GRANT") as refused:
            await Store.open(database, settings())
        await connection.execute("GRANT" + str(refused.value).partition(": GRANT")[2])
        await Store.open(database, settings())
    finally:
        await database.close()
        await connection.execute("DROP OWNED BY granted_once; DROP ROLE granted_once")
        await connection.close()


async def test_what_is_missing_is_named(dsn: str, empty_dsn: str, settings: Callable[..., Settings]) -> None:
    """The schema, a table, a column; each with the way out."""
    connection = await asyncpg.connect(dsn)
    database, empty = Database(dsn), Database(empty_dsn)

    with pytest.raises(CannotStartError, match="has not been created: run `liveness migrate`"):
        await Store.open(empty, settings())
    await connection.execute("ALTER TABLE task_execution DROP COLUMN updated_at")
    with pytest.raises(CannotStartError, match=r"public\.task_execution has no column updated_at"):
        await Store.open(database, settings())
    await connection.execute("DROP TABLE task_execution")
    with pytest.raises(CannotStartError, match=r"there is no table public\.task_execution"):
        await Store.open(database, settings())

    await connection.close()
    await database.close()
    await empty.close()


@pytest.mark.parametrize(
    ("table", "column", "kind"),
    [("worker", "last_heartbeat_at", "timestamp(3)"), ("workflow_execution", "updated_at", "timestamp")],
)
async def test_a_date_without_its_zone_is_refused_where_nobody_can_tell_what_it_means(
    dsn: str, settings: Callable[..., Settings], table: str, column: str, kind: str
) -> None:
    """Every age would be off by the zone: living work would look old. In UTC it says the same with and without."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind} USING {column}::{kind}")
    name = dsn.rpartition("/")[2]
    await connection.execute(f"ALTER DATABASE \"{name}\" SET timezone = 'Europe/Berlin'")
    abroad = Database(dsn)
    with pytest.raises(CannotStartError, match=rf"public\.{table}\.{column}.*without time zone.*Europe/Berlin"):
        await Store.open(abroad, settings())
    await abroad.close()

    await connection.execute(f"ALTER DATABASE \"{name}\" SET timezone = 'Etc/UTC'")
    at_home = Database(dsn)
    with capture_logs() as logs:
        await Store.open(at_home, settings())
    assert [line["column"] for line in logs if line["event"] == "dates_doubtful"] == [f"public.{table}.{column}"]
    await at_home.close()
    await connection.close()


@pytest.mark.parametrize(
    ("kind", "found"), [("text", "text"), ("timestamptz(0)", r"timestamp\(0\) with time zone"), ("day", "date")]
)
async def test_a_column_by_which_no_age_can_be_told_is_refused(
    dsn: str, settings: Callable[..., Settings], kind: str, found: str
) -> None:
    """In whole seconds, a claim would look older than its process."""
    connection, database = await asyncpg.connect(dsn), Database(dsn)
    await connection.execute("CREATE DOMAIN day AS date; CREATE DOMAIN moment AS timestamptz")
    await connection.execute("ALTER TABLE task_execution ALTER COLUMN updated_at DROP DEFAULT")
    await connection.execute(f"ALTER TABLE task_execution ALTER COLUMN updated_at TYPE {kind}")
    with pytest.raises(CannotStartError, match=rf"task_execution\.updated_at is of type {found}: .* timestamptz"):
        await Store.open(database, settings())
    await connection.execute("ALTER TABLE task_execution ALTER COLUMN updated_at TYPE moment USING now()")
    await Store.open(database, settings())
    await database.close()
    await connection.close()


async def test_a_database_that_cannot_hold_every_name_is_refused(
    empty_dsn: str, settings: Callable[..., Settings]
) -> None:
    """One unwritable name would keep every replica from learning what its predecessor did."""
    connection = await asyncpg.connect(empty_dsn)
    name = f"{empty_dsn.rpartition('/')[2]}_latin"
    await connection.execute(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
    latin = Database(f"{empty_dsn.rpartition('/')[0]}/{name}")
    with pytest.raises(CannotStartError, match="encoding is LATIN1"):
        await Store.open(latin, settings())
    await latin.close()
    await connection.execute(f'DROP DATABASE "{name}"')
    await connection.close()


async def test_an_away_database_is_an_error_of_its_own() -> None:
    """Try again later, says the type."""
    database = Database("postgresql://postgres@127.0.0.1:1/nothing")

    with pytest.raises(DatabaseAwayError):
        await database.fetch("SELECT 1")
    await database.close()
