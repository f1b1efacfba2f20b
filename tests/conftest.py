"""Real servers for every test that needs them.

One Postgres for each process of the run, and in it a fresh database for each test, copied from a template that is
migrated once. A nats-server for each test: it starts in milliseconds, and no test hears another's messages.
"""

import asyncio
import contextlib
import gc
import logging
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import asyncpg
import hypothesis
import pytest
import structlog
from nats.aio.client import Client

from liveness.client.clock import clock
from liveness.embedded import NatsServer, PostgresServer
from liveness.settings import Settings, load
from liveness.store import Database, Leader, Store, migrate
from tests.pgbouncer import PgBouncer, find_pgbouncer

# An end that never comes is a failure of the test, not of its patience.
SOON = 20.0
LOOK_SECONDS = 0.02
# A database is some 300 files, and gone a second later: no disk has to see them where there is memory to hold them.
# What a server needs is about 150 MB; a container's share of memory may be less than that.
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of its own is made in it
ENOUGH_MEMORY = 2 * 2**30

# The run's processes and some hundred others load the same modules. Where the environment forbids to keep what was
# compiled, as many a container's does, each would compile them anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes is nobody's business here: the machine may be busy with others.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_finish() -> None:
    """Keep the garbage collector from going through the modules of all tests again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside() -> None:
    for name in [name for name in os.environ if name.startswith("LIVENESS_") and name != "LIVENESS_PG_BIN"]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Undo what a command does to the logs that is run in this process, a level that leaves lines out among it.

    A logger that was used meanwhile would keep that, so none does.
    """
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure = structlog.configure
    with mock.patch.object(structlog, "configure") as configured:
        configured.side_effect = lambda **settings: configure(**settings | {"cache_logger_on_first_use": False})
        yield
    if configured.called:
        structlog.reset_defaults()
        root.handlers = handlers
        root.setLevel(level)


@pytest.fixture(scope="session")
def postgres_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for Postgres, in memory where there is enough of it."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ENOUGH_MEMORY:
        with tempfile.TemporaryDirectory(prefix="liveness-", dir=MEMORY) as folder:
            yield Path(folder)
    else:
        yield tmp_path_factory.mktemp("postgres")


@pytest.fixture(scope="session")
def postgres(postgres_folder: Path) -> Iterator[PostgresServer]:
    """A Postgres server for the whole run, with the database `migrated` to copy."""
    server = PostgresServer(postgres_folder)

    async def start() -> None:
        await server.start()
        connection = await asyncpg.connect(server.dsn)
        await connection.execute("CREATE DATABASE migrated")
        await connection.close()
        database = Database(named(server.dsn, "migrated"))
        await database.connect()
        await migrate(database, "public", host_tables=True)
        await database.close()

    asyncio.run(start())
    yield server
    asyncio.run(server.stop())


async def look_again() -> None:
    """Wait a moment, between two looks at what tells nobody that it has changed.

    Looks without a pause would keep a core from those who are to bring it about.
    """
    await asyncio.sleep(LOOK_SECONDS)


async def delivered(client: Client) -> None:
    """Return once the server has all that `client` was given to send.

    A single flush() does not say so: nats-py writes its PING ahead of what waits. That is written, too, when the first
    answer is here.
    """
    await client.flush()
    await client.flush()


def named(dsn: str, database: str) -> str:
    """Return `dsn` with another database's name."""
    return dsn.rpartition("/")[0] + "/" + database


@pytest.fixture(scope="session")
def command(postgres: PostgresServer) -> Iterator[Callable[[str], None]]:
    """Carry out a statement on the server, by a connection and an event loop that no test has a part in."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        connection = runner.run(asyncpg.connect(postgres.dsn))

        def carry_out(statement: str) -> None:
            runner.run(connection.execute(statement))

        yield carry_out
        runner.run(connection.close())


@contextlib.contextmanager
def fresh_database(server: PostgresServer, command: Callable[[str], None], template: str) -> Iterator[str]:
    """Copy a database, and return where it is; it is gone at the end."""
    name = f"test_{uuid.uuid4().hex}"
    # By the file: a sixth less work for Postgres than block by block through its log.
    command(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield named(server.dsn, name)
    # Whoever was killed or paused in the test may have left a connection.
    command(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def dsn(postgres: PostgresServer, command: Callable[[str], None]) -> Iterator[str]:
    """A fresh database with the schema liveness and the reference host tables."""
    with fresh_database(postgres, command, "migrated") as fresh:
        yield fresh


@pytest.fixture
def empty_dsn(postgres: PostgresServer, command: Callable[[str], None]) -> Iterator[str]:
    """A fresh database with nothing in it."""
    with fresh_database(postgres, command, "template1") as fresh:
        yield fresh


@pytest.fixture
async def pgbouncer(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[PgBouncer]:
    """A pgbouncer in transaction mode before the Postgres of this run, for this test alone."""
    program = find_pgbouncer()
    if program is None:
        pytest.skip("no pgbouncer on the PATH nor in /usr/sbin: install Debian's package pgbouncer")
    server = PgBouncer(tmp_path / "pgbouncer", program, postgres.port)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Suspend the machine for so many seconds: the worker's clock goes on, and that of its loop does not."""
    gone = [0.0]

    def now() -> float:
        return clock() + gone[0]

    monkeypatch.setattr("liveness.client.surroundings.clock", now)

    def suspend(seconds: float) -> None:
        gone[0] += seconds

    return suspend


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server with JetStream, for this test alone."""
    server = NatsServer(tmp_path / "nats")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def host(dsn: str) -> AsyncIterator["HostTables"]:
    """The host's side of the fresh database."""
    connection = await asyncpg.connect(dsn)
    yield HostTables(connection)
    await connection.close()


@pytest.fixture
def settings(dsn: str) -> Callable[..., Settings]:
    """Make settings for the fresh database; tests change what they are about."""

    def make(**overrides: Any) -> Settings:
        values = {"postgres_dsn": dsn, "http_listen": "127.0.0.1:0"} | overrides
        return load({}, **values)[0]

    return make


@pytest.fixture
async def stores(settings: Callable[..., Settings]) -> AsyncIterator[Callable[..., Any]]:
    """Open stores on the fresh database, with settings as given; all are closed at the end.

    The first one takes the lead, and the others act under its term as if they were that process: what epochs promise
    has to hold by their own locks, and not only because one process acts at a time. `leads=False`: one that does not.
    """
    leaders: list[Leader] = []
    async with contextlib.AsyncExitStack() as stack:

        async def open_store(*, leads: bool = True, **overrides: Any) -> Store:
            made = settings(**overrides)
            database = Database(made.postgres_dsn, made.lock_timeout)
            stack.push_async_callback(database.close)
            await database.connect()
            opened = await Store.open(database, made)
            if leads and leaders:
                opened.leader.term, opened.leader.holder = leaders[0].term, leaders[0].holder
            elif leads:
                assert await opened.leader.take(0.0)
                leaders.append(opened.leader)
            return opened

        yield open_store


@pytest.fixture
async def store(stores: Callable[..., Any]) -> Store:
    """A store on the fresh database with default settings, which leads."""
    opened: Store = await stores()
    return opened


class HostTables:
    """What a workflow server would do to its tables, and looks at them."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection

    async def worker(self, name: str, status: str = "ONLINE", silent_for: float = 0.0) -> str:
        """Register a worker whose last recorded beat is `silent_for` seconds old; return its row's id."""
        return str(
            await self.connection.fetchval(
                "INSERT INTO worker (worker_name, status, last_heartbeat_at)"
                " VALUES ($1, $2, now() - make_interval(secs => $3)) RETURNING id",
                name,
                status,
                silent_for,
            )
        )

    async def workflows(
        self, owner: str | None, count: int = 1, status: str = "RUNNING", untouched_for: float = 0.0
    ) -> list[str]:
        """Create workflows of that status held by `owner`, untouched for so many seconds; return their ids."""
        rows = await self.connection.fetch(
            "INSERT INTO workflow_execution (worker_id, status, kind, queue, updated_at)"
            " SELECT $1, $2, 'invoice', 'billing', now() - make_interval(secs => $4) FROM generate_series(1, $3)"
            " RETURNING id::text",
            owner,
            status,
            count,
            untouched_for,
        )
        return [row["id"] for row in rows]

    async def tasks(self, owner: str, count: int = 1) -> list[str]:
        """Create RUNNING tasks held by `owner`; return their ids."""
        rows = await self.connection.fetch(
            "INSERT INTO task_execution (worker_id, status, queue)"
            " SELECT $1, 'RUNNING', 'mail' FROM generate_series(1, $2) RETURNING id::text",
            owner,
            count,
        )
        return [row["id"] for row in rows]

    async def state(self, workflow: str) -> tuple[str, str | None]:
        """Return status and owner of one workflow."""
        row = await self.connection.fetchrow(
            "SELECT status, worker_id FROM workflow_execution WHERE id = $1::uuid", workflow
        )
        assert row is not None
        return row["status"], row["worker_id"]

    async def count(self, status: str, owner: str | None = None) -> int:
        """Return how many workflows have this status, and owner if one is given."""
        return int(
            await self.connection.fetchval(
                "SELECT count(*) FROM workflow_execution WHERE status = $1 AND ($2::text IS NULL OR worker_id = $2)",
                status,
                owner,
            )
        )

    async def worker_status(self, name: str) -> list[str]:
        """Return the status of each of the worker's rows."""
        rows = await self.connection.fetch(
            "SELECT status FROM worker WHERE worker_name = $1 ORDER BY created_at, id", name
        )
        return [row["status"] for row in rows]

    async def outbox(self) -> list[tuple[str, str]]:
        """Return type and subject of the events in the outbox, in their order."""
        rows = await self.connection.fetch(
            "SELECT o.type, coalesce(i.item->>0, o.subject) AS subject FROM liveness.outbox AS o"
            " LEFT JOIN LATERAL json_array_elements(o.items) WITH ORDINALITY AS i (item, place) ON true"
            " ORDER BY o.seq, i.place"
        )
        return [(row["type"], row["subject"]) for row in rows]
