"""Everything that a disaster needs: servers, tables full of work, the service, its workers, and the host's own doings.

Postgres as it comes, with `fsync`, `synchronous_commit` and `full_page_writes` on for whoever is measured; NATS as
`liveness.embedded` runs it. Postgres notes the time of each commit, too, so that what a reclaim took is read from the
rows themselves and nobody has to look on.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec

from liveness.embedded import PostgresServer
from liveness.embedded.temporary import TemporaryFolder
from liveness.store import Database, migrate
from tests.benchmarks.child import Child, child
from tests.benchmarks.servers import nats, port_of

QUEUE: Final = "measured"
# Beats a second of those that will die, all together: so many that their last ones lie within some 0.05 s.
DYING_RATE: Final = 25_000
# Of the living: five in a ttl each, as a worker beats by default.
BEATS_IN_A_TTL: Final = 5
# The host's other transactions: few enough that two cores have time left.
CONNECTIONS: Final = 4
OTHERS_RATE: Final = 400
LOOK_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 300.0

# Owners take turns, as those who claim do.
_FILL: Final = """
    INSERT INTO workflow_execution (worker_id, status, kind, queue)
    SELECT
        CASE WHEN owner < $2 THEN 'worker-' ELSE $3::text || '-' END || owner, 'RUNNING', 'invoice',
        CASE WHEN owner < $2 THEN 'living' ELSE $4 END
    FROM (SELECT g % $1::integer AS owner FROM generate_series(0, $5::integer - 1) AS g) AS rows
"""
# Of all rows that are back: when the first transaction that took part began, and when each of them was committed.
_COMMITS: Final = """
    SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 AS at, count(*) AS rows,
        extract(epoch FROM min(updated_at))::float8 AS began
    FROM workflow_execution WHERE queue = $1 AND status = 'PENDING' GROUP BY 1 ORDER BY 1
"""
_BARE: Final = """
    UPDATE workflow_execution
    SET status = 'PENDING', worker_id = NULL, version = version + 1, updated_at = now()
    WHERE worker_id = ANY ($1::text[]) AND status = 'RUNNING'
"""


class Size(msgspec.Struct, frozen=True):
    """How many workers there are, how many of them die, and how many rows each holds. `ttl` in seconds."""

    workers: int
    dying: int
    each: int
    ttl: float

    @property
    def living(self) -> int:
        """How many stay."""
        return self.workers - self.dying

    @property
    def rows(self) -> int:
        """How many rows have to go back."""
        return self.dying * self.each

    def names(self, kind: str) -> list[str]:
        """Return the owners of those rows."""
        return [f"{kind}-{number}" for number in range(self.living, self.workers)]


class Took(msgspec.Struct, frozen=True):
    """From when to when, by the machine's time, all rows went back, and how many were back at each commit."""

    began: float
    commits: Sequence[tuple[float, int]]

    @property
    def ended(self) -> float:
        """The last commit."""
        return self.commits[-1][0]

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.ended - self.began


class Disaster(msgspec.Struct, frozen=True):
    """What it took, when (machine's time) they died and when the last of the news was out, and gaps in hearing since.

    The news are looked for every `LOOK_SECONDS`.
    """

    took: Took
    died: float
    told: float
    gaps: int


class Scene:
    """A running service with workers that beat, and work that they hold."""

    def __init__(
        self, size: Size, connection: "asyncpg.Connection[asyncpg.Record]", port: int, service: Child, others: Child
    ) -> None:
        self.size = size
        self._connection = connection
        self._port = port
        self._service = service
        self._others = others

    async def bare(self) -> Took:
        """Put the rows back with one UPDATE."""
        # Owners of whom the service knows nothing, so that it is at rest.
        await self._fill("former")
        await self._connection.execute(_BARE, self.size.names("former"))
        return await self._took()

    async def disaster(self) -> Disaster:
        """Let the workers die, and wait until all is done."""
        size = self.size
        async with child("tests.benchmarks.load", self._port, size.workers, DYING_RATE, 0, "full") as dying:
            await dying.says()
            await self._until("SELECT count(*) = $1 FROM liveness.epoch WHERE ended_at IS NULL", size.workers)
            await self._fill("worker")
            gaps = (await self.known())["gaps"]
        died = time.time()
        await self._until(
            "SELECT count(*) = $1 FROM liveness.expiration"
            " WHERE finished_at IS NOT NULL AND expired_at > to_timestamp($2::float8)",
            size.dying,
            died,
        )
        gaps = (await self.known())["gaps"] - gaps
        await self._until("SELECT count(*) = 0 FROM liveness.outbox")
        told = time.time()
        return Disaster(await self._took(), died, told, int(gaps))

    async def known(self) -> dict[str, Any]:
        """Return what the service knows of itself."""
        self._service.tell()
        known: dict[str, Any] = await self._service.says()
        return known

    async def others(self) -> list[list[float]]:
        """Return what the host's other transactions took since this was asked last: [[began, seconds], ...]."""
        self._others.tell()
        samples: list[list[float]] = await self._others.says()
        return samples

    async def _fill(self, kind: str) -> None:
        size = self.size
        await self._connection.execute("TRUNCATE workflow_execution")
        await self._connection.execute(_FILL, size.workers, size.living, kind, QUEUE, size.workers * size.each)
        # As a host's tables are on an ordinary day.
        await self._connection.execute("VACUUM (ANALYZE)")
        await self._connection.execute("CHECKPOINT")

    async def _took(self) -> Took:
        rows = await self._connection.fetch(_COMMITS, QUEUE)
        commits, back = [], 0
        for row in rows:
            back += row["rows"]
            commits.append((row["at"], back))
        assert back == self.size.rows, f"{back} rows are back"
        return Took(min(row["began"] for row in rows), commits)

    async def _until(self, question: str, *parameters: object) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self._connection.fetchval(question, *parameters):  # noqa: ASYNC110 - as follows
                # Nobody tells. What is measured is read from the rows, however late this is noticed.
                await asyncio.sleep(LOOK_SECONDS)


@asynccontextmanager
async def scene(size: Size, **settings: Any) -> AsyncIterator[Scene]:
    """Set a scene, with the service's settings as given, while the body runs."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats(jetstream=True))
        dsn = await stack.enter_async_context(tables())
        connection = await asyncpg.connect(dsn)
        stack.push_async_callback(connection.close)
        await connection.execute(
            "INSERT INTO worker (worker_name) SELECT 'worker-' || g FROM generate_series(0, $1::integer - 1) AS g",
            size.workers,
        )
        given = {"nats_url": server.url, "postgres_dsn": dsn, "heartbeat_timeout": size.ttl, "max_ttl": size.ttl}
        service = await stack.enter_async_context(child("tests.benchmarks.serving", json.dumps(given | settings)))
        await service.says()
        port, rate = port_of(server.url), size.living * BEATS_IN_A_TTL / size.ttl
        living = await stack.enter_async_context(child("tests.benchmarks.load", port, size.living, rate, 0, "full"))
        await living.says()
        others = await stack.enter_async_context(child("tests.benchmarks.others", dsn, CONNECTIONS, OTHERS_RATE))
        await others.says()
        yield Scene(size, connection, port, service, others)


@asynccontextmanager
async def tables() -> AsyncIterator[str]:
    """Run a Postgres with the host's tables and ours while the body runs; yields its address."""
    folder = TemporaryFolder.make()
    server = PostgresServer(folder.path / "postgres", durable=True, options={"track_commit_timestamp": "on"})
    await server.start()
    try:
        database = Database(server.dsn)
        await database.connect()
        await migrate(database, "public", host_tables=True)
        await database.close()
        yield server.dsn
    finally:
        await server.stop()
        folder.remove()
