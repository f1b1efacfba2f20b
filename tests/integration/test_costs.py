"""What a reclaim, a batch of the relay and a sweep ask of Postgres: so many statements, however much there is to do.

A transaction begins with one statement (and its settings in the same message) and ends with one; one that acts asks for
its term, too.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence

import asyncpg
import pytest

from liveness.publishing import Event
from liveness.relay import BATCH, Relay
from liveness.settings import Settings
from liveness.store import Database, Life, Progress, Store
from tests.conftest import HostTables
from tests.integration.conftest import case
from tests.integration.test_sweep import Eye
from tests.traces import collected

READING, ACTING = 2, 3
# What one transaction asks that ends epochs and puts their work back: the tables; the epochs; each of the two work
# tables; the registry; the host's checks and the relay's wake-up.
SETTLE = ACTING + 1 + 1 + 2 + 2
# And of lives that crashed, whose work may have its crash budget behind it: what would be undone to find that out.
WATCHED = 1
# The same for a chunk of what was left: the tables; which reclaims; two work tables; the last two.
FINISH = ACTING + 1 + 1 + 2 + 2
# What a relay asks for a batch: what there is; to forget it; whether there is more.
RELAY = (READING + 1) + (ACTING + 1) + (READING + 1)
# What a sweep asks that finds nothing: six questions, and what time it is; and one that finds somebody: whose name is
# ambiguous, what time it is then, and the reclaim, which opens an epoch for who was never heard.
SWEEP = 7 * (READING + 1)
SWEEP_FINDS = SWEEP + 2 * (READING + 1) + SETTLE + 1


class Counting(Database):
    """A database that counts every statement asked of it."""

    def __init__(self, dsn: str) -> None:
        super().__init__(dsn)
        self.asked: Counter[str] = Counter()

    async def _watch(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        await super()._watch(connection)
        connection.add_query_logger(self._note)

    def _note(self, query: asyncpg.connection.LoggedQuery) -> None:
        self.asked[query.query.splitlines()[0]] += 1

    def count(self) -> int:
        """Return how many statements were asked since the last time."""
        count = self.asked.total()
        self.asked.clear()
        return count


@pytest.fixture
async def counting(dsn: str) -> AsyncIterator[Counting]:
    """A database that counts."""
    database = Counting(dsn)
    yield database
    await database.close()


@pytest.fixture
async def counted(counting: Counting, settings: Callable[..., Settings], store: Store) -> Store:
    """A store on that database, which leads."""
    await store.leader.release()
    other = await Store.open(counting, settings(reclaim_chunk=100))
    assert await other.leader.take(0.0)
    counting.count()
    return other


async def lives(host: HostTables, store: Store, many: int, rows: int) -> dict[str, int]:
    """Let so many workers hold so many rows each; return their epochs."""
    names = [f"w{number}" for number in range(many)]
    for name in names:
        await host.worker(name)
        await host.workflows(name, rows)
    return dict((await store.epochs.grant([Life(name, None, None, 10.0) for name in names])).epochs)


@pytest.mark.parametrize(("many", "rows"), [(1, 1), (1, 100), (20, 5)])
async def test_a_reclaim_asks_as_much_for_many_as_for_one(
    host: HostTables, counting: Counting, counted: Store, many: int, rows: int
) -> None:
    """One transaction for all workers that died at once, and for all rows that fit into a chunk."""
    epochs = await lives(host, counted, many, rows)
    counting.count()

    await counted.reclaims.settle([case(name, epoch) for name, epoch in epochs.items()])

    assert counting.count() == SETTLE
    assert await host.count("PENDING") == many * rows
    assert await counted.reclaims.unfinished() == []


async def test_a_trace_asks_for_nothing_more(host: HostTables, counting: Counting, counted: Store) -> None:
    """What is written has its context from the settings with which the transaction begins."""
    epochs = await lives(host, counted, 2, 2)
    counting.count()

    with collected():
        await counted.reclaims.settle([case(name, epoch) for name, epoch in epochs.items()])

    assert counting.count() == SETTLE
    assert await host.connection.fetchval("SELECT bool_and(traceparent IS NOT NULL) FROM liveness.outbox")


async def test_a_crash_asks_for_one_statement_more(host: HostTables, counting: Counting, counted: Store) -> None:
    """However many rows: nothing of them has its crash budget behind it."""
    epochs = await lives(host, counted, 3, 20)
    counting.count()

    await counted.reclaims.settle([case(name, epoch, crash=True) for name, epoch in epochs.items()])

    assert counting.count() == SETTLE + WATCHED


async def test_what_is_left_costs_a_transaction_for_each_chunk(
    host: HostTables, counting: Counting, counted: Store
) -> None:
    """Not for each worker, and not for each row."""
    epochs = await lives(host, counted, 6, 50)
    await counted.reclaims.settle([case(name, epoch) for name, epoch in epochs.items()])
    names, progress = await counted.reclaims.unfinished(), Progress()
    counting.count()

    await counted.reclaims.finish(progress, names)
    await counted.reclaims.finish(progress, names)

    assert counting.count() == 2 * FINISH
    assert await host.count("PENDING") == 300


async def test_the_events_of_a_life_are_one_row_of_the_outbox(host: HostTables, counted: Store) -> None:
    """Besides the one that tells of its end."""
    epochs = await lives(host, counted, 3, 20)

    await counted.reclaims.settle([case(name, epoch) for name, epoch in epochs.items()])

    assert await host.connection.fetchval("SELECT count(*) FROM liveness.outbox") == 6
    assert (await counted.outbox.depth())[0] == 63


async def test_a_batch_of_the_relay_is_read_once_and_cleared_once(
    host: HostTables, counting: Counting, counted: Store, settings: Callable[..., Settings]
) -> None:
    """However many events it is, and one more look finds nothing."""
    epochs = await lives(host, counted, 3, 20)
    await counted.reclaims.settle([case(name, epoch) for name, epoch in epochs.items()])
    batches: list[int] = []

    async def publish(events: Sequence[Event]) -> tuple[list[int], str | None]:
        batches.append(len(events))
        return list(range(len(events))), None

    # The first time, asyncpg asks for the type of the parameter.
    await counted.outbox.clear([])
    counting.count()
    await Relay(store=counted, settings=settings(), publish=publish).run_once()

    assert batches == [63]
    assert counting.count() == RELAY
    assert sum(batches) < BATCH


@pytest.mark.parametrize("many", [1, 20])
async def test_a_sweep_asks_as_much_however_many_it_finds(
    host: HostTables, counting: Counting, counted: Store, settings: Callable[..., Settings], many: int
) -> None:
    """What it finds is ended in one transaction."""
    eye = Eye(counted, settings())
    await eye.sweep.run_once()
    # As above.
    counting.count()
    await eye.sweep.run_once()
    nothing = counting.count()
    for number in range(many):
        await host.worker(f"stale-{number}", silent_for=1_000.0)
        await host.workflows(f"stale-{number}")

    swept = await eye.sweep.run_once()

    assert (len(swept.stale), swept.ended, swept.items) == (many, many, many)
    # Many at once count against no work.
    assert (nothing, counting.count()) == (SWEEP, SWEEP_FINDS + (WATCHED if many == 1 else 0))
