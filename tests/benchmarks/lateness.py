"""How late dead work is PENDING: from the moment at which a lease has lapsed to the commit that puts the work back.

A real service with 100,000 leases hears 20,000 beats a second, while some workers, far too few for a storm, fall silent
one after another, over as long as it is from one checkpoint to the next. Each holds a RUNNING row, and so do those who
live. When it lapsed, in hearing time, is what the service wrote down of it (`lapsed_at`); that its row is PENDING is
seen by a listener, to whom a trigger of the host's table tells it: Postgres delivers that behind the commit, and it
flushes every commit (`fsync` on).

In wall time, from a ttl after the last beat was sent, everything else is in it, too: the way there, and what was not
heard in gaps.

The peers have it easier: they hold a few hundred keys, and hear nothing else. Late is the event that tells of a key's
end, less the moment of its last sign of life, less its ttl. Nobody's work is back by then.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import asyncpg
import msgspec

from liveness.embedded import NatsServer, PostgresServer
from liveness.store import Database, migrate
from tests.benchmarks.child import Child, child
from tests.benchmarks.figures import Curve, Measured, Outcome, Plan, Reach, Row, percentile
from tests.benchmarks.peer import Expiring, running
from tests.benchmarks.peers import EXPIRING
from tests.benchmarks.peers_redis import Redis

NUMBER: Final = 3
# As often as its manual allows; a line to be read, and nothing is promised against it.
EAGER: Final[Expiring] = Redis(hz=100)
# The last of what may be drawn on a logarithmic scale, seconds.
LEAST_DRAWN: Final = 0.000_1
LOOK_SECONDS: Final = 0.1
PATIENCE_SECONDS: Final = 120.0
_FILL: Final = """
    INSERT INTO worker (worker_name) SELECT 'worker-' || n FROM generate_series(0, $1::integer - 1) AS n
"""
_WORK: Final = """
    INSERT INTO workflow_execution (worker_id, status)
    SELECT 'worker-' || n, 'RUNNING' FROM generate_series(0, $1::integer - 1) AS n
"""
_TELL: Final = """
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_notify('pending', OLD.worker_id);
        RETURN NULL;
    END $$;
    CREATE TRIGGER tell AFTER UPDATE ON workflow_execution FOR EACH ROW
    WHEN (OLD.status = 'RUNNING' AND NEW.status = 'PENDING') EXECUTE FUNCTION tell();
"""
# What autovacuum does within a minute: until then Postgres plans for tables that were empty a moment ago.
_ORDINARY: Final = "VACUUM (ANALYZE)"
_LIVING: Final = "SELECT count(*) FROM liveness.epoch WHERE ended_at IS NULL"
# `expired_at` is when the transaction began.
_LAPSED: Final = """
    SELECT
        worker, extract(epoch FROM lapsed_at)::float8 AS at,
        extract(epoch FROM expired_at - lapsed_at)::float8 AS began,
        evidence ->> 'storm' IS NOT NULL AS held
    FROM liveness.expiration
"""


class Size(msgspec.Struct, frozen=True):
    """How much there is. `seconds`: within which the dying fall silent."""

    workers: int
    rate: int
    ttl: float
    dying: int
    seconds: float


FULL: Final = Size(workers=100_000, rate=20_000, ttl=15.0, dying=600, seconds=20.0)
QUICK: Final = Size(workers=20_000, rate=5_000, ttl=6.0, dying=200, seconds=2.0)


class Run(msgspec.Struct, frozen=True):
    """One run of ours. How late each was, in seconds: since it lapsed, and since a ttl after its last beat.

    `began`: how late its transaction began.
    """

    late: Sequence[float]
    began: Sequence[float]
    wall: Sequence[float]
    gaps: int
    # Seconds of hearing that did not count.
    lost: float
    # Living workers that were given up, and lapses that a storm held: neither happens where there is time for all.
    mistaken: int
    held: int


async def measure(plan: Plan) -> Outcome:
    """Measure ours by turns with the peers."""
    size = QUICK if plan.quick else FULL
    peers: list[Expiring] = [*EXPIRING, *([] if plan.quick else [EAGER])]
    runs: list[Run] = []
    ends: dict[str, list[list[float]]] = {peer.name: [] for peer in peers}
    for _ in range(plan.pick(3, 1)):
        plan.say(f"{size.dying} of {size.workers:,} workers fall silent")
        runs.append(await ours(size))
        _tell(plan, "its transaction begins", runs[-1].began)
        _tell(plan, "work is PENDING", runs[-1].late)
        for peer in peers:
            if peer.missing() is None:
                ends[peer.name].append(await peer.lateness(plan))
                _tell(plan, peer.name, ends[peer.name][-1])
    lines = {
        "liveness: work PENDING": [late for run in runs for late in run.late],
        "liveness: its transaction begins": [late for run in runs for late in run.began],
    }
    lines |= {f"{name}: event": [late for run in found for late in run] for name, found in ends.items() if found}
    return Outcome(_rows(size, runs, peers, ends), [_curve(lines)])


async def ours(size: Size) -> Run:
    """Let workers fall silent, and see when their work is back."""
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(running(NatsServer))
        postgres = await stack.enter_async_context(running(lambda folder: PostgresServer(folder, durable=True)))
        connection = await asyncpg.connect(postgres.dsn)
        stack.push_async_callback(connection.close)
        await _prepare(connection, postgres.dsn)
        seen: dict[str, float] = {}

        def pending(_connection: object, _pid: int, _channel: str, worker: object) -> None:
            seen.setdefault(str(worker), time.time())

        await connection.add_listener("pending", pending)
        settings = {"nats_url": nats.url, "postgres_dsn": postgres.dsn}
        service = await stack.enter_async_context(child("tests.benchmarks.serving", json.dumps(settings)))
        await service.says()
        # Behind the start: who is up by then is promised the service's own timeout, whatever it states later.
        await _fill(connection, size)
        work = msgspec.to_builtins(size) | {"port": nats.port}
        crowd = await stack.enter_async_context(child("tests.benchmarks.silences", json.dumps(work)))
        await crowd.says()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await connection.fetchval(_LIVING) < size.workers:  # noqa: ASYNC110 - nobody tells it
                await asyncio.sleep(LOOK_SECONDS)
        await connection.execute(_ORDINARY)
        before = await _known(service)
        crowd.tell()
        beats: dict[str, float] = await crowd.says()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not beats.keys() <= seen.keys():  # noqa: ASYNC110 - the listener has noted the times
                await asyncio.sleep(LOOK_SECONDS)
        after = await _known(service)
        lapsed = {row["worker"]: row for row in await connection.fetch(_LAPSED)}
        return Run(
            late=[seen[worker] - lapsed[worker]["at"] for worker in beats],
            began=[lapsed[worker]["began"] for worker in beats],
            wall=[seen[worker] - last - size.ttl for worker, last in beats.items()],
            gaps=after["gaps"] - before["gaps"],
            lost=after["lost"] - before["lost"],
            mistaken=len(lapsed.keys() - beats.keys()),
            held=sum(row["held"] for row in lapsed.values()),
        )


async def _prepare(connection: "asyncpg.Connection[asyncpg.Record]", dsn: str) -> None:
    database = Database(dsn)
    await database.connect()
    await migrate(database, "public", host_tables=True)
    await database.close()
    await connection.execute(_TELL)


async def _fill(connection: "asyncpg.Connection[asyncpg.Record]", size: Size) -> None:
    await connection.execute(_FILL, size.workers)
    await connection.execute(_WORK, size.workers)
    await connection.execute(_ORDINARY)
    await connection.execute("CHECKPOINT")


async def _known(service: Child) -> dict[str, Any]:
    service.tell()
    known: dict[str, Any] = await service.says()
    return known


def _rows(size: Size, runs: Sequence[Run], peers: Sequence[Expiring], ends: dict[str, list[list[float]]]) -> list[Row]:
    late = [run.late for run in runs]
    wall = [run.wall for run in runs]
    note = f"{sum(run.gaps for run in runs)} gaps, {sum(run.lost for run in runs):.2f} s not heard"
    if mistaken := sum(run.mistaken for run in runs):
        note += f"; {mistaken} living workers given up"
    if held := sum(run.held for run in runs):
        note += f"; {held} lapses held by a storm"
    what = f"lapsed to PENDING, {size.workers:,} leases, {size.rate:,}/s"
    rows = [_row(f"{what}, p99", _share(late, 0.99), reach=Reach(0.05, alone=True), note=note)]
    for peer in peers:
        found = ends[peer.name]
        rows.append(
            _row(
                "the same, p50", _share(late, 0.5), f"{peer.name}, at rest: the event, p50",
                _share(found, 0.5) if found else None, None if peer is EAGER else Reach(1.0), peer.missing() or "",
            )
        )  # fmt: skip
    in_wall_time = f"in wall time, from ttl ({size.ttl:g} s) after the last beat"
    rows.append(_row(f"{in_wall_time}, p50", _share(wall, 0.5), note=note))
    rows.append(_row(f"{in_wall_time}, p99", _share(wall, 0.99), note=note))
    return rows


def _row(
    what: str,
    found: Measured,
    baseline: str = "",
    theirs: Measured | None = None,
    reach: Reach | None = None,
    note: str = "",
) -> Row:
    return Row(number=NUMBER, what=what, ours=found, unit="s", baseline=baseline, theirs=theirs, reach=reach, note=note)


def _share(runs: Sequence[Sequence[float]], share: float) -> Measured:
    return Measured([percentile(run, share) for run in runs])


def _tell(plan: Plan, name: str, late: Sequence[float]) -> None:
    shares = ", ".join(f"p{share:.0%}".replace("%", "") + f" {percentile(late, share):.3f} s" for share in (0.5, 0.99))
    plan.say(f"{name}: {shares}, the last {max(late):.3f} s")


def _curve(lines: dict[str, list[float]]) -> Curve:
    return Curve(
        name="lateness", title="From the end of a lease to what comes of it", x="seconds", y="share of the leases",
        lines={name: _shares(late) for name, late in lines.items()}, log_x=True,
    )  # fmt: skip


def _shares(late: Sequence[float]) -> list[tuple[float, float]]:
    return [(max(one, LEAST_DRAWN), (at + 1) / len(late)) for at, one in enumerate(sorted(late))]
