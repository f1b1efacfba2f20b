"""How two shards divide the work of one service.

10,000 workers beat 40,000 times a second in all, once to one service that owns everybody, and once to two shards, on a
nats-server that divides their heartbeats. A window is 10 s, and by turns; each begins when Postgres knows everybody.
Statements are those of all services together, from the log of Postgres: some come by each service's own clock, so two
ask nearly twice as many as one, whatever the workers do.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import msgspec

from liveness.subjects import Subjects
from tests.benchmarks.child import Child, child
from tests.benchmarks.figures import Measured, Outcome, Plan, Reach, Row
from tests.benchmarks.hosts import connected, host, postgres
from tests.benchmarks.ledger import OPTIONS, Ledger
from tests.benchmarks.servers import nats, port_of

NUMBER: Final = 12
SHARDS: Final = 2
WORKERS: Final = 10_000
RATE: Final = 40_000.0
LOOK_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 60.0
SETTLING_SECONDS: Final = 2.0
# Of 10,000 names a hash gives each of two a half, to a per cent.
MOST_HEARD: Final = 0.55
# What each shard does by its own clock, echoes above all, is not halved.
MOST_CPU: Final = 0.75

_WORKERS: Final = "INSERT INTO worker (worker_name) SELECT 'worker-' || n FROM generate_series(0, $1::integer - 1) AS n"


class Window(msgspec.Struct, frozen=True):
    """What was done a second: heartbeats heard and cores used, by each service, and statements of all."""

    heard: list[float]
    cpu: list[float]
    statements: float


async def measure(plan: Plan) -> Outcome:
    """Measure one service and two shards by turns."""
    ones, twos = [], []
    for _ in range(plan.pick(3, 1)):
        ones.append(await _window(plan, 1))
        twos.append(await _window(plan, SHARDS))
    rows = []
    for index in range(SHARDS):
        heard = Measured([two.heard[index] / sum(two.heard) for two in twos])
        rows.append(_row(f"heartbeats heard by shard {index}/{SHARDS}", heard, "of all", Reach(MOST_HEARD, alone=True)))
    whole = Measured([one.cpu[0] for one in ones])
    for index in range(SHARDS):
        cpu = Measured([two.cpu[index] for two in twos])
        rows.append(_row(f"CPU of shard {index}/{SHARDS}", cpu, "of a core", Reach(MOST_CPU), whole))
    both = Measured([sum(two.cpu) for two in twos])
    rows.append(_row("CPU of both", both, "of a core", None, whole))
    asked = Measured([two.statements for two in twos])
    rows.append(_row("statements of both", asked, "/s", None, Measured([one.statements for one in ones])))
    return Outcome(rows)


def _row(what: str, ours: Measured, unit: str, reach: Reach | None, one: Measured | None = None) -> Row:
    baseline = "" if one is None else "one service"
    return Row(number=NUMBER, what=what, ours=ours, unit=unit, baseline=baseline, theirs=one, reach=reach)


async def _window(plan: Plan, shards: int) -> Window:
    plan.say(f"{WORKERS:,} workers, {RATE:,.0f} heartbeats a second to {shards} of {shards}")
    async with _stage(shards) as (services, ledger):
        before, asked = [await _known(one) for one in services], await ledger.read()
        began = asyncio.get_running_loop().time()
        # What is measured takes its time.
        await asyncio.sleep(plan.pick(10, 4))
        seconds = asyncio.get_running_loop().time() - began
        after, asked = [await _known(one) for one in services], (await ledger.read()).since(asked)
    done = list(zip(before, after, strict=True))
    return Window(
        heard=[(later["heard"] - former["heard"]) / seconds for former, later in done],
        cpu=[(later["cpu"] - former["cpu"]) / seconds for former, later in done],
        statements=asked.statements / seconds,
    )


@asynccontextmanager
async def _stage(shards: int) -> AsyncIterator[tuple[list[Child], Ledger]]:
    async with AsyncExitStack() as stack:
        config = f"mappings = {{ {Subjects().mapping(shards)} }}\n" if shards > 1 else ""
        bus = await stack.enter_async_context(nats(jetstream=True, config=config))
        server = await stack.enter_async_context(postgres(**OPTIONS))
        dsn = await host(server, "host")
        connection = await stack.enter_async_context(connected(dsn))
        await connection.execute(_WORKERS, WORKERS)
        ledger = Ledger(server, connection, "liveness")
        await ledger.open()
        services = []
        for index in range(shards):
            settings = {"nats_url": bus.url, "postgres_dsn": dsn, "shard": f"{index}/{shards}" if shards > 1 else ""}
            service = await stack.enter_async_context(child("tests.benchmarks.serving", json.dumps(settings)))
            await service.says()
            services.append(service)
        port = port_of(bus.url)
        load = await stack.enter_async_context(child("tests.benchmarks.load", port, WORKERS, RATE, 0, "full"))
        await load.says()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not _settled([await _known(one) for one in services]):  # noqa: ASYNC110 - as follows
                # Nobody tells when the last of them is heard.
                await asyncio.sleep(LOOK_SECONDS)
        # What is told of a name that was heard first is written within two rounds of grants.
        await asyncio.sleep(SETTLING_SECONDS)
        yield services, ledger


def _settled(known: list[dict[str, float]]) -> bool:
    return sum(one["leases"] for one in known) >= WORKERS and not any(one["wanting"] for one in known)


async def _known(service: Child) -> dict[str, float]:
    service.tell()
    said: dict[str, float] = await service.says()
    return said
