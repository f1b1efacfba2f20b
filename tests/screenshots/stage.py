"""Services with workers, each in a state that is worth a picture."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec
from nats import connect as connect_to_nats
from nats.aio.client import Client

from liveness.embedded import Servers
from liveness.service import Service
from liveness.settings import load
from liveness.store import Database, migrate
from tests.conftest import HostTables, delivered, look_again, named

# Until something has come about that a picture needs (seconds).
PATIENCE: Final = 120.0
LOOK_SECONDS: Final = 0.1


class Stage:
    """A service of this process, its host's tables, and workers that beat until they are silenced."""

    def __init__(self, service: Service, host: HostTables, client: Client) -> None:
        self.service = service
        self.host = host
        self.client = client
        self._beats: dict[str, tuple[dict[str, Any], float]] = {}

    @property
    def address(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self.service.http.port}/"

    async def begin(self, workers: Sequence[str], every: float, **beat: Any) -> None:
        """Let these beat, the first time at once."""
        self._beats |= dict.fromkeys(workers, (beat, every))
        for worker in workers:
            await self._beat(worker)
        await delivered(self.client)

    def silence(self, *workers: str) -> None:
        """Let these beat no more."""
        for worker in workers:
            del self._beats[worker]

    async def goodbye(self, worker: str, incarnation: str) -> None:
        """Let this one say that it ends."""
        self.silence(worker)
        await self.client.publish(f"liveness.goodbye.{worker}", msgspec.json.encode({"incarnation": incarnation}))
        await delivered(self.client)

    async def keep(self) -> None:
        """Beat, for ever."""
        loop = asyncio.get_running_loop()
        due: dict[str, float] = {}
        while True:
            for worker, (_, every) in list(self._beats.items()):
                if due.setdefault(worker, loop.time() + every) <= loop.time() and worker in self._beats:
                    due[worker] = loop.time() + every
                    await self._beat(worker)
            await asyncio.sleep(LOOK_SECONDS)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for it."""
        async with asyncio.timeout(PATIENCE):
            while not is_so():
                await look_again()

    async def ended(self, count: int) -> None:
        """Wait until so many lives have ended, with all of their work."""
        async with asyncio.timeout(PATIENCE):
            statement = "SELECT count(*) FROM liveness.expiration WHERE finished_at IS NOT NULL"
            while await self.host.connection.fetchval(statement) < count:
                await look_again()

    async def _beat(self, worker: str) -> None:
        beat, _ = self._beats[worker]
        await self.client.publish(f"liveness.heartbeat.{worker}", msgspec.json.encode(beat))

    def granted(self, count: int) -> Callable[[], bool]:
        """Return what says whether so many have an epoch."""

        def is_so() -> bool:
            parts = self.service.parts
            return parts is not None and len(parts.book) == count and not parts.book.wanting

        return is_so


@asynccontextmanager
async def stage(servers: Servers, name: str, **settings: Any) -> AsyncIterator[Stage]:
    """Set one up on a database of its own."""
    connection = await asyncpg.connect(servers.postgres_dsn)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    dsn = named(servers.postgres_dsn, name)
    database = Database(dsn)
    await database.connect()
    await migrate(database, "public", host_tables=True)
    await database.close()
    ours = {
        "postgres_dsn": dsn, "nats_url": servers.nats_url, "http_listen": "127.0.0.1:0", "subject_prefix": "liveness",
        "events_stream": f"S_{name}", "event_prefix": name, "max_grants": 1_000_000.0,
    }  # fmt: skip
    service, stop = Service(load({}, **(ours | settings))[0]), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    client = await connect_to_nats(servers.nats_url)
    connection = await asyncpg.connect(dsn)
    await service.started.wait()
    made = Stage(service, HostTables(connection), client)
    beating = asyncio.create_task(made.keep())
    try:
        yield made
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        stop.set()
        await running
        await client.close()
        await connection.close()
