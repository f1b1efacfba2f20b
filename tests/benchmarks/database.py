"""What heartbeats cost the database, and what a service costs to which nothing happens.

10,000 workers beat every 2 s, and the service is as `liveness serve` runs it, on a Postgres whose log holds every
statement (BEGIN and COMMIT are counted, too) and whose triggers count every row that is inserted, updated or deleted.
A window is 20 s, which is a checkpoint's time; a quick one is 8 s, and the checkpoint's interval with it. What the
service asks comes by the clock, some 25 statements a second, and not with the heartbeats: for a million more of them,
which the same workers send by beating more often, there are none.

The baselines are other job queues whose workers beat into Postgres, with all their defaults but for the time between
two beats, which is 2 s. Only what is a heartbeat is counted of theirs: the statement, by its text, and the rows of that
table. A few workers, each holding a piece of work, are enough to say what a heartbeat is; a million of them are so many
times as much.

The CPU is that of the service's process over the same windows, user and system, all threads.
"""

import asyncio
import importlib.util
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import msgspec
import nats as nats_py
from nats.aio.client import Client

from liveness.answers import StatusAnswer
from liveness.embedded import PostgresServer
from tests.benchmarks.child import Child, child
from tests.benchmarks.figures import Measured, Outcome, Plan, Reach, Row
from tests.benchmarks.hosts import connected, empty, host, postgres
from tests.benchmarks.ledger import OPTIONS, Ledger
from tests.benchmarks.load import TTL
from tests.benchmarks.servers import nats, port_of

NUMBER: Final = 9
WORKERS: Final = 10_000
# Seconds between two beats of a worker.
INTERVAL: Final = 2.0
RATE: Final = WORKERS / INTERVAL
# So many times as many heartbeats are added then: what they cost shows in the difference.
MORE: Final = 3
MILLION: Final = 1_000_000
LOOK_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 60.0
# What is told of a name that was heard first is written within two rounds of grants.
SETTLING_SECONDS: Final = 2.0

# One statement in a thousand heartbeats is none for each, and tells a statement for each from what comes by the clock a
# little more often in one window than in the other.
PER_MILLION: Final = 1_000
# Of what one who writes each beat down asks: what the service does by the clock, 25 statements a second, is a two
# hundredth of 5,000 heartbeats.
SHARE: Final = 0.01
CPU: Final = 0.10

_WORKERS: Final = "INSERT INTO worker (worker_name) SELECT 'worker-' || n FROM generate_series(0, $1::integer - 1) AS n"
# Their lives, as a service that was there before has left them: who they are has been found out.
_LIVES: Final = """
    INSERT INTO liveness.epoch (worker, epoch, incarnation, ttl, term)
    SELECT 'worker-' || n, 1, lpad(to_hex(n), 32, '0'), $2, 0 FROM generate_series(0, $1::integer - 1) AS n
"""


class Peer(NamedTuple):
    """A job queue whose workers beat into Postgres: which statement is a heartbeat, and in whose rows."""

    name: str
    shown: str
    statement: str
    relation: str


PEERS: Final = (
    Peer("procrastinate", "procrastinate's heartbeats", "procrastinate_update_heartbeat", "procrastinate_workers"),
    Peer("pgqueuer", "PgQueuer's heartbeats", r"SET heartbeat = NOW\(\) WHERE id = ANY", "pgqueuer"),
)


class Window(NamedTuple):
    """What was done in so many seconds; `cpu` in seconds, too."""

    seconds: float
    heartbeats: int
    statements: int
    rows: int
    cpu: float

    def per_million(self, count: int) -> float:
        """Return how many there would be for a million heartbeats."""
        return count * MILLION / self.heartbeats


async def measure(plan: Plan) -> Outcome:
    """Let 10,000 workers beat, then more often, and beside that the workers of others."""
    plan.say(f"{WORKERS:,} workers that beat every {INTERVAL:g} s")
    async with _stage(plan) as stage:
        usual = [await stage.window() for _ in range(plan.pick(3, 1))]
        plan.say(f"{1 + MORE} times as often, and the workers of others")
        workers = plan.pick(20, 10)
        others = asyncio.gather(*(stage.peer(peer, workers) for peer in PEERS))
        more, watched = await asyncio.gather(stage.more(), others)
    rows = [row for peer, theirs in zip(PEERS, watched, strict=True) for row in _rows(usual, peer, theirs)]
    return Outcome([*rows, _of_heartbeats(usual, more), _idle(usual)])


class Stage:
    """A service that hears 10,000 workers, and what it asks of its Postgres."""

    def __init__(
        self, seconds: float, server: PostgresServer, ledger: Ledger, service: Child, client: Client, port: int
    ) -> None:
        self._seconds = seconds
        self._server = server
        self._ledger = ledger
        self._service = service
        self._client = client
        self._port = port

    async def settle(self) -> None:
        """Wait until everybody was heard and Postgres knows all that it has to know of them."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self._heard() < 2 * WORKERS:  # noqa: ASYNC110 - as follows
                # Nobody tells when the last of them is heard.
                await asyncio.sleep(LOOK_SECONDS)
        # Nor when they are written down.
        await asyncio.sleep(SETTLING_SECONDS)

    async def window(self) -> Window:
        """Watch the service for a while."""
        heard, cpu = await self._heard(), await self._cpu()
        before, began = await self._ledger.read(), time.monotonic()
        # What is measured takes its time.
        await asyncio.sleep(self._seconds)
        asked, seconds = (await self._ledger.read()).since(before), time.monotonic() - began
        cpu = await self._cpu() - cpu
        heard = await self._heard() - heard
        return Window(seconds, heard, asked.statements, asked.rows, cpu)

    async def more(self) -> Window:
        """Watch it while everybody beats more often."""
        async with child("tests.benchmarks.load", self._port, WORKERS, MORE * RATE, 0, "full") as load:
            await load.says()
            return await self.window()

    async def peer(self, peer: Peer, workers: int) -> Window | None:
        """Watch workers of another job queue; None if it is not installed."""
        if importlib.util.find_spec(peer.name) is None:
            return None
        dsn = await empty(self._server, peer.name)
        async with child("tests.benchmarks.queues", peer.name, dsn, workers) as working, connected(dsn) as connection:
            await working.says()
            ledger = Ledger(self._server, connection, peer.name, pattern=peer.statement, relation=peer.relation)
            await ledger.open()
            working.tell()
            heard, before = (await working.says())["heartbeats"], await ledger.read()
            await asyncio.sleep(self._seconds)
            asked = (await ledger.read()).since(before)
            working.tell()
            heard = (await working.says())["heartbeats"] - heard
            return Window(self._seconds, heard, asked.statements, asked.rows, 0.0)

    async def _heard(self) -> int:
        answer = await self._client.request("liveness.api.status", b'{"limit":0}', timeout=PATIENCE_SECONDS)
        status = msgspec.json.decode(answer.data, type=StatusAnswer)
        return 0 if status.wanting else status.counts.get("heartbeats", 0)

    async def _cpu(self) -> float:
        self._service.tell()
        said: dict[str, float] = await self._service.says()
        return said["cpu"]


@asynccontextmanager
async def _stage(plan: Plan) -> AsyncIterator[Stage]:
    seconds = plan.pick(20, 8)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(nats(jetstream=True))
        server = await stack.enter_async_context(postgres(**OPTIONS))
        dsn = await host(server, "host")
        connection = await stack.enter_async_context(connected(dsn))
        await connection.execute(_WORKERS, WORKERS)
        await connection.execute(_LIVES, WORKERS, TTL)
        ledger = Ledger(server, connection, "liveness")
        await ledger.open()
        # A window holds one checkpoint, as by default one of 20 s does.
        settings = {"nats_url": bus.url, "postgres_dsn": dsn, "checkpoint_interval": seconds}
        service = await stack.enter_async_context(child("tests.benchmarks.serving", json.dumps(settings)))
        await service.says()
        client = await nats_py.connect(bus.url)
        stack.push_async_callback(client.close)
        port = port_of(bus.url)
        load = await stack.enter_async_context(child("tests.benchmarks.load", port, WORKERS, RATE, 0, "full"))
        await load.says()
        stage = Stage(seconds, server, ledger, service, client, port)
        await stage.settle()
        yield stage


def _rows(usual: Sequence[Window], peer: Peer, theirs: Window | None) -> list[Row]:
    note = f"pip install {peer.name}" if theirs is None else "theirs: of a few workers, scaled by their heartbeats"
    asked = None if theirs is None else Measured([theirs.per_million(theirs.statements)])
    written = None if theirs is None else Measured([theirs.per_million(theirs.rows)])
    return [
        Row(
            number=NUMBER,
            what="statements per million heartbeats",
            ours=Measured([window.per_million(window.statements) for window in usual]),
            unit="",
            baseline=peer.shown,
            theirs=asked,
            reach=Reach(SHARE),
            note=note,
        ),
        Row(
            number=NUMBER,
            what="rows written per million heartbeats",
            ours=Measured([window.per_million(window.rows) for window in usual]),
            unit="",
            baseline=peer.shown,
            theirs=written,
            note=f"a checkpoint every {usual[0].seconds:.0f} s; {note}",
        ),
    ]


def _of_heartbeats(usual: Sequence[Window], more: Window) -> Row:
    asked = [
        (more.statements / more.seconds - window.statements / window.seconds)
        / (more.heartbeats / more.seconds - window.heartbeats / window.seconds)
        * MILLION
        for window in usual
    ]
    return Row(
        number=NUMBER,
        what="statements for a million more heartbeats",
        ours=Measured(asked),
        unit="",
        reach=Reach(PER_MILLION, alone=True),
        note=f"the same workers, {1 + MORE} times as often",
    )


def _idle(usual: Sequence[Window]) -> Row:
    return Row(
        number=NUMBER,
        what=f"CPU, {WORKERS:,} workers every {INTERVAL:g} s",
        ours=Measured([window.cpu / window.seconds for window in usual]),
        unit="of a core",
        reach=Reach(CPU, alone=True),
    )
