"""A flood of invented names at a real service, while workers that it knows go on, die, and come.

Two of the known die: one in the quiet before, one in the middle of the flood. And somebody comes in the middle of whom
no registry knows, who owns work that was not touched for long: what the sweep looks for.
"""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import msgspec
from nats import connect as connect_to_nats
from nats.aio.client import Client

from liveness.answers import StatusAnswer, StatusRequest
from liveness.cli.asking import ask
from liveness.errors import LivenessError
from liveness.settings import Settings, load
from tests.benchmarks import servers
from tests.benchmarks.child import child
from tests.benchmarks.memory import resident

LOOK_SECONDS: Final = 0.05
WATCH_SECONDS: Final = 0.2
# Who begins hears a question before it may answer.
ANSWER_SECONDS: Final = 1.0
PATIENCE_SECONDS: Final = 60.0
# What each name in the book may take, and what a service may take besides while it has much to do (bytes).
LEASE_MOST: Final = 1_000
BESIDES_MOST: Final = 50_000_000
# Of a ttl: how often workers beat, and how much later than usual work may be back.
BEATS_IN_A_TTL: Final = 5
NEWCOMER: Final = "newcomer"
_FILL: Final = """
    WITH up AS (INSERT INTO worker (worker_name) SELECT 'known-' || n FROM generate_series(0, $1::integer - 1) AS n)
    INSERT INTO workflow_execution (worker_id, status)
    SELECT 'known-' || n, 'RUNNING' FROM generate_series(0, $1::integer - 1) AS n
"""
_OLD: Final = """
    INSERT INTO workflow_execution (worker_id, status, updated_at) VALUES ($1, 'RUNNING', now() - interval '1 hour')
    RETURNING id
"""
_OPEN: Final = "SELECT count(*) FROM liveness.epoch WHERE ended_at IS NULL AND worker LIKE $1"
_ENDED: Final = "SELECT count(*) FROM liveness.expiration WHERE worker LIKE $1"
_BACK: Final = "SELECT extract(epoch FROM min(reclaimed_at))::float8 FROM liveness.reclaim WHERE worker = $1"


class Size(msgspec.Struct, frozen=True):
    """How many names are invented and at which rate (a second), beside how many that are known; and the bounds.

    `ttl` in seconds, of everybody.
    """

    names: int
    rate: int
    known: int
    ttl: float
    max_workers: int
    max_grants: float


class Report(msgspec.Struct, frozen=True):
    """What came of it. Memory in bytes, times in seconds; `late` is from the end of a promise to the reclaim."""

    sent: int
    seconds: float
    turned_away: Mapping[str, int]
    granted: int
    leases_most: int
    known_ended: int
    newcomer_ended: int
    newcomer_known_after: float
    late_before: float
    late_meanwhile: float
    gaps: int
    storms: int
    resident_before: int
    resident_most: int
    resident_after: int

    def violations(self, size: Size) -> list[str]:
        """Return what should not have been."""
        grown = self.resident_most - self.resident_before
        found = {
            f"{self.known_ended} known workers were given up, and 2 had died": self.known_ended != 2,
            "work was taken from a newcomer that beat": self.newcomer_ended > 0,
            # The newcomer, whom Postgres knows by then, comes in all the same.
            f"{self.leases_most} leases, beyond max_workers": self.leases_most > size.max_workers + 1,
            f"memory grew by {grown / 1e6:.0f} MB": grown > self.leases_most * LEASE_MOST + BESIDES_MOST,
            "nobody was turned away": not sum(self.turned_away.values()),
            f"work was back {self.late_meanwhile - self.late_before:.3f} s later than usual": self.late_meanwhile
            > self.late_before + size.ttl / BEATS_IN_A_TTL,
        }
        return [text for text, is_so in found.items() if is_so]


class Known:
    """Workers that beat until they are silenced."""

    def __init__(self, client: Client, ttl: float) -> None:
        self.beat_at: dict[str, float] = {}
        self._client = client
        self._ttl = ttl
        self._living: dict[str, float] = {}

    def begin(self, *workers: str) -> None:
        """Let these beat from now on, one after another within an interval."""
        for place, worker in enumerate(workers):
            self._living[worker] = time.monotonic() + place / len(workers) * self._ttl / BEATS_IN_A_TTL

    def silence(self, worker: str) -> float:
        """Let it die; return when it beat last (the machine's time)."""
        del self._living[worker]
        return self.beat_at[worker]

    async def keep(self) -> None:
        """Beat, for ever."""
        payload = msgspec.json.encode({"ttl": self._ttl})
        while True:
            now = time.monotonic()
            for worker in [worker for worker, due in self._living.items() if due <= now]:
                self._living[worker] += self._ttl / BEATS_IN_A_TTL
                self.beat_at[worker] = time.time()
                await self._client.publish(f"liveness.heartbeat.{worker}", payload)
            await self._client.flush()
            await asyncio.sleep(LOOK_SECONDS / 2)


class Watch:
    """Looks at the service: how much memory it has, how many leases, and what it says of itself."""

    def __init__(self, settings: Settings, pid: int) -> None:
        self.resident_most = self.leases_most = self.storms_most = 0
        self._settings = settings
        self._pid = pid

    async def keep(self) -> None:
        """Look, for ever."""
        while True:
            self.resident_most = max(self.resident_most, self.resident())
            with contextlib.suppress(LivenessError):
                status = await self.status()
                self.leases_most = max(self.leases_most, status.leases)
                self.storms_most = max(self.storms_most, len(status.storms))
            await asyncio.sleep(WATCH_SECONDS)

    def resident(self) -> int:
        """Return how much memory it has."""
        return resident(self._pid)

    async def status(self) -> StatusAnswer:
        """Return what the service says."""
        return await ask(self._settings, "status", StatusRequest(limit=0), StatusAnswer, ANSWER_SECONDS)


async def flood(size: Size, nats_url: str, dsn: str) -> Report:
    """Do all that, on fresh servers with the host's tables."""
    given: dict[str, Any] = {
        "nats_url": nats_url, "postgres_dsn": dsn, "http_listen": "127.0.0.1:0", "heartbeat_timeout": size.ttl,
        "max_workers": size.max_workers, "max_grants": size.max_grants,
        # So that the sweep has every occasion.
        "stale_worker_check_interval": size.ttl / 10, "workflow_stuck_timeout": size.ttl / 10,
    }  # fmt: skip
    settings, _ = load({}, **given)
    async with contextlib.AsyncExitStack() as stack:
        connection = await asyncpg.connect(dsn)
        stack.push_async_callback(connection.close)
        client = await connect_to_nats(nats_url)
        stack.push_async_callback(client.close)
        service = await stack.enter_async_context(_serving(given))
        watch, known = Watch(settings, service.pid), Known(client, size.ttl)
        await _until_it_answers(watch, service)
        await connection.execute(_FILL, size.known)
        known.begin(*(f"known-{number}" for number in range(size.known)))
        async with _beside(known.keep()), _beside(watch.keep()):
            await _until(connection, f"({_OPEN}) = {size.known}", "known-%")
            return await _flood(size, watch, known, connection, servers.port_of(nats_url))


async def _flood(
    size: Size, watch: Watch, known: Known, connection: "asyncpg.Connection[asyncpg.Record]", port: int
) -> Report:
    late_before = await _late(connection, "known-0", known.silence("known-0") + size.ttl)
    before, resident_before = await watch.status(), watch.resident_most
    async with child("tests.flood.sender", port, size.names, size.rate) as sender:
        await sender.says()
        died_at = known.silence("known-1")
        await connection.fetchval(_OLD, NEWCOMER)
        known.begin(NEWCOMER)
        came = time.monotonic()
        sending = asyncio.create_task(sender.says())
        await _until(connection, f"({_OPEN}) = 1", NEWCOMER)
        known_after = time.monotonic() - came
        late_meanwhile = await _late(connection, "known-1", died_at + size.ttl)
        sent = await sending
    # Until the strangers have left: all that came in have lapsed, and been ended.
    await _until(connection, f"({_OPEN}) = 0", "invented-%")
    after = await watch.status()
    return Report(
        sent=sent["sent"],
        seconds=sent["seconds"],
        turned_away={bound: after.counts.get(f"beyond_{bound}", 0) for bound in ("workers", "grants")},
        granted=await connection.fetchval(_ENDED, "invented-%"),
        leases_most=watch.leases_most,
        known_ended=await connection.fetchval(_ENDED, "known-%"),
        newcomer_ended=await connection.fetchval(_ENDED, NEWCOMER),
        newcomer_known_after=known_after,
        late_before=late_before,
        late_meanwhile=late_meanwhile,
        gaps=after.gaps - before.gaps,
        storms=watch.storms_most,
        resident_before=resident_before,
        resident_most=watch.resident_most,
        resident_after=watch.resident(),
    )


async def _late(connection: "asyncpg.Connection[asyncpg.Record]", worker: str, promised_until: float) -> float:
    await _until(connection, f"({_BACK}) IS NOT NULL", worker)
    return float(await connection.fetchval(_BACK, worker)) - promised_until


async def _until(connection: "asyncpg.Connection[asyncpg.Record]", condition: str, *arguments: object) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await connection.fetchval(f"SELECT {condition}", *arguments):  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(LOOK_SECONDS)


async def _until_it_answers(watch: Watch, service: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if service.returncode is not None:
                raise LivenessError("the service has ended")
            try:
                await watch.status()
            except LivenessError:
                await asyncio.sleep(LOOK_SECONDS)
            else:
                return


@asynccontextmanager
async def _serving(given: Mapping[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("LIVENESS_")}
    environment = outside | {f"LIVENESS_{name.upper()}": str(value) for name, value in given.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "liveness", "serve", env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@asynccontextmanager
async def _beside(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
