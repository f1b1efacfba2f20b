"""From the last beat of a killed worker until its work is back and whoever listens has been told.

Real processes with several workers each are ended by SIGKILL, one after another at moments that have to do with
nothing, spread over the longest scan of all. In each of them some workers are under `Heartbeater` with a ttl of 10 s,
and others write the time into their row of the registry every 10 s, once for each baseline. The service is as `liveness
serve` runs it, with default settings. The last beat is what a plain subscriber of `liveness.heartbeat.>` heard last of
the name, the end that `workflow.reclaimed` came out of `liveness.client.events`, both by the clock of one process.

The baselines look into databases of their own on the same Postgres, at the same time: the bug report's design, step by
step as it proposes it (workers without a heartbeat for 60 s, looked for every 30 s), and one statement every 10 s that
puts the work of workers back whose heartbeat is older than 30 s. Their last beat is what stands in the row, and their
end the moment at which the statement was committed: nobody is told of it.

More workers live on than die, so that no storm is declared; if one is all the same, or a living worker loses its work,
the note says so. The 99th percentile of some dozens is nearly the greatest of them. A quick run does everything in a
fifth of all times, the ttl and the timeouts of the baselines too.

Workers under `liveness run` do not have to be silent for a ttl: it sees their end. How long that takes, from the death
of the command to `workflow.reclaimed`, is measured with as many processes, a ttl of 60 s, and nobody else on the stage.
"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Final, NamedTuple

import asyncpg
import nats as nats_py
from nats.aio.msg import Msg

from liveness.client import events
from liveness.embedded import PostgresServer
from liveness.eventdata import LivenessStorm, WorkflowReclaimed
from tests.benchmarks.child import Child, child
from tests.benchmarks.figures import Curve, Measured, Outcome, Plan, Reach, Row, percentile
from tests.benchmarks.hosts import connected, host, postgres
from tests.benchmarks.servers import nats
from tests.benchmarks.supervised import deaths

NUMBER: Final = 4
# All in seconds; a run that is quick does all of it in a fifth of that.
TTL: Final = 10.0
QUICK: Final = 0.2
# What is promised beyond the ttl, however long that is: the way through Postgres and JetStream.
BEYOND: Final = 0.1
# What is promised of a command under `liveness run`, in ms, by share of the deaths.
SUPERVISED: Final = {0.5: 25.0, 0.99: 100.0}
# Workers in a process that is killed, under `Heartbeater` and of each baseline.
OURS, THEIRS = 4, 2
# For each process that is killed, so many workers under `Heartbeater` live on, some to a process. They are more than
# 45 % of all: not even the death of all the others is a storm.
LIVING, LIVING_TOGETHER = 5, 40
MORTALS: Final = "tests.benchmarks.mortals"
BEATS: Final = "liveness.heartbeat."
# Above the longest that any of them may take.
PATIENCE_SECONDS: Final = 240.0


class Baseline(NamedTuple):
    """One who looks into the database; durations in seconds."""

    kind: str
    shown: str
    timeout: float
    scan: float
    # A beat is an UPDATE. So often as procrastinate beats, six and three times in the timeout.
    interval: float = 10.0


BASELINES: Final = (
    Baseline("report", "the bug report: 60 s timeout, scan every 30 s", 60.0, 30.0),
    Baseline("poll", "heartbeat column: 30 s timeout, poll every 10 s", 30.0, 10.0),
)

_REGISTER: Final = "INSERT INTO worker (worker_name) SELECT unnest($1::text[])"
_CLAIM: Final = """
    INSERT INTO workflow_execution (status, worker_id, queue)
    SELECT 'RUNNING', unnest($1::text[]), 'billing'
"""
_LAST_BEATS: Final = "SELECT worker_name, extract(epoch FROM last_heartbeat_at)::float8 AS at FROM worker"


async def measure(plan: Plan) -> Outcome:
    """Kill workers, one process after another, and wait until everybody has noticed."""
    scale = QUICK if plan.quick else 1.0
    async with _stage(scale, plan.pick(24, 8)) as stage:
        plan.say("everybody beats; the processes are killed")
        await stage.kill()
        ours = await stage.told()
        plan.say("those under Heartbeater are back; waiting for those who look into the database")
        theirs = [await watch.found() for watch in stage.watches]
    plan.say("and those under `liveness run`")
    supervised = await deaths(plan.pick(40, 10))
    notes = [f"all durations times {scale:g}"] if plan.quick else []
    # Neither is to be seen, unless the machine is overloaded.
    notes += stage.storms
    notes += [f"living workers that were given up: {stage.mistaken}"] if stage.mistaken else []
    rows = [
        row
        for one, found in zip(BASELINES, theirs, strict=True)
        for row in _rows(TTL * scale, ours, one, found, "; ".join(notes))
    ]
    rows += [
        Row(
            number=NUMBER, what=f"the command under `liveness run` killed, to workflow.reclaimed, p{share * 100:.0f}",
            ours=Measured([percentile(supervised, share) * 1_000]), unit="ms",
            baseline=f"a worker that is not supervised, ttl {TTL * scale:g} s",
            theirs=Measured([percentile(ours, share) * 1_000]), reach=Reach(most, alone=True),
        )
        for share, most in SUPERVISED.items()
    ]  # fmt: skip
    lines = {f"liveness, ttl {TTL * scale:g} s": _shares(ours)}
    lines |= {one.shown: _shares(found) for one, found in zip(BASELINES, theirs, strict=True)}
    curve = Curve(
        name="detection", title="From the last beat to work that is back", x="seconds", y="share of the workers",
        lines=lines,
    )  # fmt: skip
    return Outcome(rows, [curve])


class Watch:
    """One who looks for dead workers in a database of its own."""

    def __init__(
        self, dsn: str, scanner: Child, connection: "asyncpg.Connection[asyncpg.Record]", victims: set[str]
    ) -> None:
        self.dsn = dsn
        self._scanner = scanner
        self._connection = connection
        self._victims = victims

    async def found(self) -> list[float]:
        """Wait until all victims were found; return the seconds since the last beat of each."""
        found: dict[str, float] = {}
        while self._victims - found.keys():
            worker, when = await self._scanner.says(PATIENCE_SECONDS)
            found[worker] = when
        last_beats = {row["worker_name"]: row["at"] for row in await self._connection.fetch(_LAST_BEATS)}
        return [found[worker] - last_beats[worker] for worker in self._victims]


class Stage:
    """Workers in processes that can be killed, and who notices it."""

    def __init__(self, mortals: Sequence[Child], watches: Sequence[Watch], victims: set[str], killing: float) -> None:
        self.watches = watches
        # What is told of storms.
        self.storms: list[str] = []
        # Living ones whose work was taken.
        self.mistaken = 0
        self._mortals = mortals
        self._victims = victims
        # Seconds for all of them.
        self._killing = killing
        # Loop times, by name.
        self._last_beats: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._all_told = asyncio.Event()

    async def kill(self) -> None:
        """Kill a process after another, each at a moment that has to do with nothing."""
        for mortal in self._mortals:
            # So that their ends are spread over all that others do by the clock.
            await asyncio.sleep(random.uniform(0.5, 1.5) * self._killing / len(self._mortals))
            mortal.kill()

    async def told(self) -> list[float]:
        """Wait until all are told; return the seconds since the last beat of each."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self._all_told.wait()
        return [self._told[worker] - self._last_beats[worker] for worker in self._victims]

    async def hear(self, message: Msg) -> None:
        """Note a heartbeat."""
        self._last_beats[message.subject.removeprefix(BEATS)] = time.monotonic()

    async def listen(self, url: str) -> None:
        """Note what is told, for ever."""
        types = ["workflow.reclaimed", "liveness.storm"]
        async with aclosing(events(url, durable="detection", types=types)) as news:
            async for event in news:
                now = time.monotonic()
                if isinstance(event.data, LivenessStorm):
                    self.storms.append(f"storm {event.data.state}: {event.data.silent} of {event.data.members}")
                elif not isinstance(event.data, WorkflowReclaimed):
                    continue
                elif event.data.former_worker in self._victims:
                    self._told.setdefault(event.data.former_worker, now)
                else:
                    self.mistaken += 1
                if len(self._told) == len(self._victims):
                    self._all_told.set()


class Cast(NamedTuple):
    """Who plays: the names of each kind, by process."""

    processes: int

    def of(self, kind: str, process: int) -> list[str]:
        """Return the workers of one kind in one process."""
        return [f"{kind}-{process}-{number}" for number in range(OURS if kind == "ours" else THEIRS)]

    def victims(self, kind: str) -> set[str]:
        """Return all workers of one kind that will die."""
        return {name for process in range(self.processes) for name in self.of(kind, process)}


@asynccontextmanager
async def _stage(scale: float, processes: int) -> AsyncIterator[Stage]:
    cast = Cast(processes)
    living = [f"living-{number}" for number in range(LIVING * processes)]
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(nats(jetstream=True))
        server = await stack.enter_async_context(postgres())
        dsn = await host(server, "ours")
        settings = json.dumps({"nats_url": bus.url, "postgres_dsn": dsn})
        service = await stack.enter_async_context(child("tests.benchmarks.serving", settings))
        await service.says()
        connection = await stack.enter_async_context(connected(dsn))
        await connection.execute(_REGISTER, [*cast.victims("ours"), *living])
        watches = [await _watch(stack, server, one, scale, cast.victims(one.kind)) for one in BASELINES]

        ours = {"nats": bus.url, "ttl": TTL * scale}
        fates: list[dict[str, object]] = [
            {
                **ours,
                "workers": cast.of("ours", process),
                "columns": [
                    {"dsn": watch.dsn, "interval": one.interval * scale, "workers": cast.of(one.kind, process)}
                    for one, watch in zip(BASELINES, watches, strict=True)
                ],
            }
            for process in range(processes)
        ]
        fates += [
            {**ours, "workers": living[start : start + LIVING_TOGETHER], "columns": []}
            for start in range(0, len(living), LIVING_TOGETHER)
        ]
        everybody = [await stack.enter_async_context(child(MORTALS, json.dumps(fate))) for fate in fates]
        mortals = everybody[:processes]
        stage = Stage(mortals, watches, cast.victims("ours"), scale * max(one.scan for one in BASELINES))
        client = await nats_py.connect(bus.url)
        stack.push_async_callback(client.close)
        await client.subscribe(f"{BEATS}>", cb=stage.hear)
        listening = asyncio.create_task(stage.listen(bus.url))
        stack.callback(listening.cancel)
        for mortal in everybody:
            await mortal.says()
        # Not before: a process that begins under a name which holds something has a former one's work given back.
        await connection.execute(_CLAIM, [*cast.victims("ours"), *living])
        yield stage


async def _watch(
    stack: AsyncExitStack, server: PostgresServer, one: Baseline, scale: float, victims: set[str]
) -> Watch:
    dsn = await host(server, one.kind)
    connection = await stack.enter_async_context(connected(dsn))
    for statement in (_REGISTER, _CLAIM):
        await connection.execute(statement, list(victims))
    scanner = await stack.enter_async_context(
        child("tests.benchmarks.scanners", one.kind, dsn, one.timeout * scale, one.scan * scale)
    )
    await scanner.says()
    return Watch(dsn, scanner, connection, victims)


def _rows(ttl: float, ours: Sequence[float], one: Baseline, theirs: Sequence[float], note: str) -> list[Row]:
    def row(share: float, reach: Reach | None) -> Row:
        return Row(
            number=NUMBER,
            what=f"last beat to workflow.reclaimed, ttl {ttl:g} s, p{share * 100:.0f}",
            ours=Measured([percentile(ours, share)]),
            unit="s",
            baseline=one.shown,
            theirs=Measured([percentile(theirs, share)]),
            reach=reach,
            note=note,
        )

    return [row(0.5, Reach(ttl + BEYOND, alone=True)), row(0.99, Reach(1.0))]


def _shares(seconds: Sequence[float]) -> list[tuple[float, float]]:
    """Return how many had been noticed by when."""
    return [(value, (place + 1) / len(seconds)) for place, value in enumerate(sorted(seconds))]
