"""100,000 events, from their rows in the outbox to a durable consumer: how many a second.

The rows are those of a real reclaim, whose service ended before it had published any; the next one starts, takes the
lead and publishes them. The consumer is a process of its own and counts. What is measured begins with the service's
duties, or with the loop, and ends when the consumer has received the last.

The baseline is nats-py's `publish_async` in a loop, with acknowledgements and its own window of 4,000, as its manual
has it, to the same stream and consumer and with payloads of the same size, by turns: once bare, and once with the
headers that our events bear (an id, by which JetStream drops repeats, and a content type).
"""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import asyncpg
import nats as nats_py
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig

from liveness.bus import Bus
from liveness.eventdata import EVENT_TYPES
from liveness.settings import Settings
from liveness.store import Database, Life, Progress, Store
from liveness.verdicts import Case
from tests.benchmarks.child import Child, child
from tests.benchmarks.figures import Outcome, Plan, Reach, Row, by_turns
from tests.benchmarks.scene import tables
from tests.benchmarks.servers import nats, port_of

NUMBER: Final = 6
EACH: Final = 100
# Lives in one transaction; some 2,000 rows, as many as a chunk.
LIVES_AT_ONCE: Final = 20
DURABLE: Final = "taker"
SUBJECT: Final = "workflow.reclaimed"


async def measure(plan: Plan) -> Outcome:
    """Measure the relay by turns with both loops."""
    lives = plan.pick(100_000, 10_000) // EACH
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats(jetstream=True))
        dsn = await stack.enter_async_context(tables())
        settings = Settings(nats_url=server.url, postgres_dsn=dsn)
        stream = await stack.enter_async_context(_stream(settings))
        taker = await stack.enter_async_context(
            child("tests.benchmarks.taker", port_of(server.url), settings.events_stream, DURABLE)
        )
        await taker.says()
        sides = Sides(plan, settings, taker, stream, lives)
        # The first brings the size of an event with it, and is not counted.
        await sides.ours()
        ours, bare, named = await by_turns(plan.pick(5, 1), sides.ours, sides.bare, sides.named)
    what = f"{lives * EACH:,} events, outbox to consumer"
    return Outcome(
        [
            Row(number=NUMBER, what=what, ours=ours, unit="/s", baseline="publish_async loop, bare", theirs=bare,
                reach=Reach(0.8, at_least=True)),
            Row(number=NUMBER, what="the same", ours=ours, unit="/s", baseline="publish_async loop, our headers",
                theirs=named),
        ]
    )  # fmt: skip


class Sides:
    """Who publishes; each says how many events a second the consumer received."""

    def __init__(self, plan: Plan, settings: Settings, taker: Child, stream: JetStreamContext, lives: int) -> None:
        self._plan = plan
        self._settings = settings
        self._taker = taker
        self._stream = stream
        self._lives = lives
        self._size = 0

    async def ours(self) -> float:
        """The service, which starts with a full outbox."""
        await self._empty()
        count = await fill_outbox(self._settings, self._lives)
        self._taker.tell(str(count))
        given = json.dumps({"nats_url": self._settings.nats_url, "postgres_dsn": self._settings.postgres_dsn})
        async with child("tests.benchmarks.serving", given) as service:
            rate = await self._rate("the service", (await service.says())["started"])
        last = await self._stream.get_last_msg(self._settings.events_stream, SUBJECT)
        self._size = len(last.data or b"")
        return rate

    async def bare(self) -> float:
        """nats-py in a loop."""
        return await self._published("bare")

    async def named(self) -> float:
        """The same with headers."""
        return await self._published("named")

    async def _published(self, kind: str) -> float:
        await self._empty()
        count = self._lives * EACH
        self._taker.tell(str(count))
        command = ("tests.benchmarks.publisher", self._settings.nats_url, SUBJECT, self._size, kind)
        async with child(*command) as publisher:
            await publisher.says()
            publisher.tell(str(count))
            return await self._rate(f"publish_async, {kind}", (await publisher.says())["began"])

    async def _empty(self) -> None:
        # So that the stream in nobody's turn is fuller than in another's.
        await self._stream.purge_stream(self._settings.events_stream)

    async def _rate(self, who: str, began: float) -> float:
        said = await self._taker.says()
        rate = float(said["received"] / (said["last"] - began))
        self._plan.say(f"{who}: {said['received']:,} events, {rate:,.0f} /s")
        return rate


async def fill_outbox(settings: Settings, lives: int) -> int:
    """Have so many lives end that hold work, and publish nothing; return how many events wait."""
    connection = await asyncpg.connect(settings.postgres_dsn)
    database = Database(settings.postgres_dsn)
    try:
        store = await Store.open(database, settings)
        assert await store.leader.take(0.0)
        names = [f"worker-{number}" for number in range(lives)]
        granted = await store.epochs.grant(Life(name, None, None, 10.0) for name in names)
        await connection.execute("TRUNCATE workflow_execution, liveness.outbox")
        await connection.execute(
            "INSERT INTO workflow_execution (worker_id, status, kind, queue)"
            " SELECT 'worker-' || (g % $1), 'RUNNING', 'invoice', 'billing'"
            " FROM generate_series(0, $2::integer - 1) AS g",
            lives,
            lives * EACH,
        )
        await connection.execute("VACUUM (ANALYZE)")
        for start in range(0, lives, LIVES_AT_ONCE):
            some = names[start : start + LIVES_AT_ONCE]
            await store.reclaims.settle([_case(name, granted.epochs[name]) for name in some])
        await _finish(store)
        await store.leader.release()
        await connection.execute("VACUUM (ANALYZE)")
        await connection.execute("CHECKPOINT")
        return int(await connection.fetchval("SELECT sum(events) FROM liveness.outbox"))
    finally:
        await database.close()
        await connection.close()


async def _finish(store: Store) -> None:
    progress = Progress()
    while names := await store.reclaims.unfinished():
        await store.reclaims.finish(progress, names)


def _case(worker: str, epoch: int) -> Case:
    return Case(
        worker=worker, epoch=epoch, incarnation="0" * 32, reason="lapsed", ttl=10.0, silent_for=10.02, overdue=0.02,
        evidence={"why": "no heartbeat for 10.020 s of hearing; ttl 10 s"},
    )  # fmt: skip


@asynccontextmanager
async def _stream(settings: Settings) -> AsyncIterator[JetStreamContext]:
    """Make the stream as the service makes it, and a consumer of it."""
    bus = Bus(settings.nats_url)
    await bus.connect()
    await bus.ensure_stream(
        settings.events_stream, list(EVENT_TYPES), settings.events_max_age, settings.events_max_bytes
    )
    await bus.close()
    client = await nats_py.connect(settings.nats_url)
    context = client.jetstream()
    await context.add_consumer(
        settings.events_stream, ConsumerConfig(durable_name=DURABLE, ack_policy=AckPolicy.ALL, max_ack_pending=100_000)
    )
    yield context
    await client.close()
