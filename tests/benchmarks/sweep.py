"""A sweep over the RUNNING rows of living workers, with some orphans among them.

A million rows, 100 to a worker, that nobody has touched for a quarter of an hour, so that none is passed over for being
young; and a thousand of workers that are OFFLINE, with 100 each as well. The service hears the living. What is measured
is the time from asking to knowing, of `Sweep.run_once`: without taking, which is all that it looks for (names that are
stale, orphans of both kinds of work, rows without an owner), and with it.

The baseline is the statement that the bug report describes, which is all that it has for orphans, on the same rows, by
turns: as a SELECT, and as it stands. It puts rows back and does nothing else; we end epochs, and write history and
news. Before each turn the orphans are made orphans again and the tables vacuumed, for both alike. `fsync` is off.
"""

import itertools
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import structlog

from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.settings import load
from liveness.store import Database, Store
from liveness.storms import Storms
from liveness.sweep import Sweep
from tests.benchmarks.figures import Measured, Outcome, Plan, Reach, Row, by_turns
from tests.benchmarks.hosts import connected, host, postgres

NUMBER: Final = 11
# Rows of one worker; one that died held as many.
EACH: Final = 100
# For how long we have listened, and for how long nobody has touched a row, seconds: longer than any timeout, so that no
# row is passed over for being young. That is the worst case for us; the bug report does not ask.
LISTENED: Final = 1_000.0
TTL: Final = 10.0
BASELINE: Final = "the bug report's statement"

_WORKERS: Final = """
    INSERT INTO worker (worker_name, status)
    SELECT $1::text || n, $2 FROM generate_series(0, $3::integer - 1) AS n
"""
# Owners take turns, as those who claim do.
_ROWS: Final = """
    INSERT INTO workflow_execution (worker_id, status, kind, queue, updated_at)
    SELECT $1::text || n % $2::integer, 'RUNNING', 'invoice', 'billing', now() - make_interval(secs => $3)
    FROM generate_series(0, $4::integer - 1) AS n
"""
_REMEMBER: Final = """
    CREATE TABLE orphan AS SELECT id, worker_id FROM workflow_execution WHERE worker_id LIKE 'dead-%'
"""
_ORPHAN_AGAIN: Final = """
    UPDATE workflow_execution AS w
    SET status = 'RUNNING', worker_id = o.worker_id, updated_at = now() - make_interval(secs => $1)
    FROM orphan AS o
    WHERE w.id = o.id
"""
# What the bug report says of its `reclaim_orphaned_workflows`: "all workflows where the assigned worker is not ONLINE".
# NOT EXISTS would say the same, and takes longer.
_REPORT_TAKES: Final = """
    UPDATE workflow_execution
    SET status = 'PENDING', worker_id = NULL, updated_at = $1
    WHERE status = 'RUNNING' AND worker_id IS NOT NULL
        AND worker_id NOT IN (SELECT worker_name FROM worker WHERE status = 'ONLINE')
"""
_REPORT_FINDS: Final = """
    SELECT id FROM workflow_execution
    WHERE status = 'RUNNING' AND worker_id IS NOT NULL
        AND worker_id NOT IN (SELECT worker_name FROM worker WHERE status = 'ONLINE')
"""


async def measure(plan: Plan) -> Outcome:
    """Find the orphans, and find them and put them back, by turns with the bug report."""
    # What is swept is logged, name by name.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    rows, orphans = plan.pick(1_000_000, 100_000), plan.pick(1_000, 100)
    plan.say(f"{rows:,} RUNNING rows of living workers, and {orphans:,} orphans")
    async with _stage(rows, orphans) as stage:
        times = plan.pick(9, 5)
        found, report_found = await by_turns(times, stage.finds, stage.report_finds)
        taken, report_took = await by_turns(times, stage.takes, stage.report_takes)
    # Of a tenth of the rows, the round trips of our many statements are half of it.
    reach = None if plan.quick else Reach(0.5)
    return Outcome(
        [
            _row(f"orphans found, {rows:,} rows", found, report_found, reach),
            _row("found and put back, with history and news", taken, report_took, None),
        ]
    )


class Stage:
    """A table full of work, a service that hears those who live, and the bug report's scheduler; milliseconds."""

    def __init__(self, sweep: Sweep, connection: "asyncpg.Connection[asyncpg.Record]", orphans: int) -> None:
        self._sweep = sweep
        self._connection = connection
        self._orphans = orphans

    async def finds(self) -> float:
        """Look through everything as the service does, without taking."""
        await self._make_ready()
        began = time.perf_counter()
        swept = await self._sweep.run_once(dry_run=True)
        taken = time.perf_counter() - began
        assert len(swept.orphaned) == self._orphans // EACH, swept
        return taken * 1e3

    async def takes(self) -> float:
        """Sweep."""
        await self._make_ready()
        began = time.perf_counter()
        swept = await self._sweep.run_once()
        taken = time.perf_counter() - began
        assert swept.items == self._orphans, swept
        return taken * 1e3

    async def report_finds(self) -> float:
        """Find what the bug report's statement would take."""
        await self._make_ready()
        began = time.perf_counter()
        found = await self._connection.fetch(_REPORT_FINDS)
        taken = time.perf_counter() - began
        assert len(found) == self._orphans, len(found)
        return taken * 1e3

    async def report_takes(self) -> float:
        """Take it."""
        await self._make_ready()
        now = await self._connection.fetchval("SELECT now()")
        began = time.perf_counter()
        said = await self._connection.execute(_REPORT_TAKES, now)
        taken = time.perf_counter() - began
        assert said == f"UPDATE {self._orphans}", said
        return taken * 1e3

    async def _make_ready(self) -> None:
        """Make the same rows orphans again, with living workers who have just beaten."""
        await self._connection.execute(_ORPHAN_AGAIN, LISTENED)
        await self._connection.execute("UPDATE worker SET last_heartbeat_at = now() WHERE status = 'ONLINE'")
        # As autovacuum leaves it, for both alike.
        await self._connection.execute("VACUUM (ANALYZE) worker, workflow_execution")


@asynccontextmanager
async def _stage(rows: int, orphans: int) -> AsyncIterator[Stage]:
    async with postgres() as server, connected(dsn := await host(server, "sweep")) as connection:
        for kind, status, count in (("worker-", "ONLINE", rows), ("dead-", "OFFLINE", orphans)):
            await connection.execute(_WORKERS, kind, status, count // EACH)
            await connection.execute(_ROWS, kind, count // EACH, LISTENED, count)
        await connection.execute(_REMEMBER)
        settings, _ = load({}, postgres_dsn=dsn)
        database = Database(dsn)
        await database.connect()
        store = await Store.open(database, settings)
        assert await store.leader.take(0.0)
        book = LeaseTable(settings.heartbeat_timeout)
        for number, epoch in zip(range(rows // EACH), itertools.count(1)):
            book.restore(f"worker-{number}", LISTENED, TTL, epoch)
        sweep = Sweep(
            book=book,
            hearing=_who_has_listened(),
            storms=Storms(max_hold=0.0, shuffle=lambda _: None),
            store=store,
            settings=settings,
            clock=time.monotonic,
        )
        yield Stage(sweep, connection, orphans)
        await database.close()


def _who_has_listened() -> Hearing:
    now = time.monotonic()
    # No gap is too long for it, so that one echo is proof enough.
    hearing = Hearing(now - LISTENED, max_gap=2 * LISTENED)
    hearing.start(now - LISTENED)
    hearing.sent(b"echo", now)
    hearing.heard(b"echo", now)
    return hearing


def _row(what: str, ours: Measured, theirs: Measured, reach: Reach | None) -> Row:
    return Row(number=NUMBER, what=what, ours=ours, unit="ms", baseline=BASELINE, theirs=theirs, reach=reach)
