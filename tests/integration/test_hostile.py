"""Ways that once led to taken live work, lost work, or a lie; each found by somebody who looked for it."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from liveness.bus import Bus
from liveness.embedded import NatsServer
from liveness.expiry import Expiry
from liveness.finish import Finish
from liveness.grants import Grants
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.probes import Probes
from liveness.publishing import Event
from liveness.settings import Settings
from liveness.store import Progress, Store
from liveness.storms import Storms
from liveness.sweep import Sweep
from liveness.wakes import Wakes
from tests.conftest import HostTables
from tests.integration.conftest import Grant, case, finish_chunk
from tests.unit.makers import Ears


class Parts:
    """The deciding parts of a service over a real store, with ears whose time the test lets pass."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.told: list[str] = []
        self.book = LeaseTable(settings.heartbeat_timeout)
        # The store reckons with the loop's real clock: this one is a little ahead of it, and in whole seconds.
        self.ears = Ears(float(math.ceil(time.monotonic())))
        self.hearing = self.ears.hearing
        storms = Storms(max_hold=settings.storm_max_hold, shuffle=lambda _: None)

        async def publish(subject: str, _payload: bytes) -> bool:
            self.told.append(subject)
            return True

        self.grants = Grants(
            book=self.book, hearing=self.hearing, store=store, settings=settings, publish=publish, clock=self.clock
        )
        self.expiry = Expiry(
            chunk=2_000,
            book=self.book,
            hearing=self.hearing,
            storms=storms,
            probes=Probes(book=self.book, ask=lambda *_: False, on_answer=lambda *_: None),
            store=store,
            clock=self.clock,
            wakes=Wakes(),
        )
        self.sweep = Sweep(
            book=self.book, hearing=self.hearing, storms=storms, store=store, settings=settings, clock=self.clock
        )
        self.finish = Finish(store, self.clock)

    def clock(self) -> float:
        """The loop's time, as the test has set it."""
        return self.ears.time

    def beat(self, worker: str, incarnation: str | None = None) -> None:
        """Let a worker beat."""
        self.book.beat(worker, self.ears.stamp(), Heartbeat(incarnation=incarnation), self.ears.time)

    def deaf_for(self, seconds: float) -> None:
        """Let so much time pass without a connection."""
        self.hearing.stop()
        self.ears.wait(seconds)
        self.hearing.start(self.ears.time)


@pytest.fixture
def parts(store: Store, settings: Callable[..., Settings]) -> Parts:
    """The parts in mode act."""
    return Parts(store, settings())


async def test_a_deaf_sweep_takes_nothing(host: HostTables, parts: Parts) -> None:
    """A worker that started while we could not hear is not judged by a registry that nobody refreshes."""
    parts.ears.listen(3600.0)
    parts.hearing.stop()
    await host.worker("w1", silent_for=500.0)
    await host.workflows("w1", untouched_for=500.0)
    await host.workflows("w2", untouched_for=500.0)

    swept = await parts.sweep.run_once()

    assert (swept.ended, sorted(swept.too_early)) == (0, ["w1", "w2"])
    assert await host.count("RUNNING") == 2


async def test_what_the_next_life_claimed_before_a_late_verdict_is_its_own(host: HostTables, parts: Parts) -> None:
    """A goodbye whose verdict was delayed takes back only what nobody touched since the next life was heard."""
    parts.beat("w1", "old")
    await parts.grants.run_once()
    (old,) = await host.workflows("w1", untouched_for=60.0)
    parts.book.release("w1", "old", parts.hearing.now)
    parts.ears.listen(1.0)
    parts.beat("w1", "new")
    parts.deaf_for(20.0)
    (new,) = await host.workflows("w1", untouched_for=15.0)

    await parts.expiry.run_once()

    assert await host.state(old) == ("PENDING", None)
    assert await host.state(new) == ("RUNNING", "w1")


async def test_nobody_is_told_to_drop_work_that_was_only_observed(
    stores: Callable[..., Any], settings: Callable[..., Settings], host: HostTables
) -> None:
    """In mode observe a recovered worker goes on undisturbed."""
    parts = Parts(await stores(mode="observe"), settings(mode="observe"))
    await host.workflows("w1")
    parts.beat("w1")
    await parts.grants.run_once()
    await parts.expiry.run_once()
    parts.ears.listen(61.0)
    assert (await parts.expiry.run_once()).ended == 1
    parts.beat("w1")

    await parts.grants.run_once()

    assert parts.told == []
    assert ("worker.recovered", "w1") in await host.outbox()


async def test_a_row_that_was_touched_while_it_was_locked_goes_back(
    dsn: str, host: HostTables, store: Store, grant: Grant
) -> None:
    """As long as the name has begun no other life, the row is the ended life's whoever touched it."""
    epoch = await grant("w1")
    (workflow,) = await host.workflows("w1")
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("UPDATE workflow_execution SET version = version + 1")
    await store.reclaims.settle([case("w1", epoch)])
    await transaction.commit()
    await other.close()

    await finish_chunk(store, Progress())

    assert await host.state(workflow) == ("PENDING", None)


async def test_a_row_that_cannot_be_set_back_holds_up_no_sweep(host: HostTables, parts: Parts) -> None:
    """It is given up; orphans are found and others are set back all the same."""
    await host.connection.execute("CREATE UNIQUE INDEX ON worker (worker_name) WHERE status = 'ONLINE'")
    for name in ("w1", "w2"):
        await host.worker(name, silent_for=500.0)
        parts.beat(name)
    await parts.grants.run_once()
    parts.ears.listen(61.0)
    await parts.expiry.run_once()
    await host.worker("w1")
    for name in ("w1", "w2"):
        parts.beat(name)
    await parts.grants.run_once()
    await host.workflows("gone", untouched_for=500.0)

    swept = await parts.sweep.run_once()

    assert swept.orphaned == ["gone"]
    assert await host.worker_status("w1") == ["OFFLINE", "ONLINE"]
    assert await host.worker_status("w2") == ["ONLINE"]
    assert sorted(parts.told) == ["liveness.superseded.w1", "liveness.superseded.w2"]


async def test_refused_rows_of_a_large_reclaim_hold_up_nobody(
    host: HostTables, stores: Callable[..., Any], settings: Callable[..., Settings], grant: Grant
) -> None:
    """The others' reclaims are finished, and theirs is as far as it can be."""
    store = await stores(reclaim_chunk=1)
    for name in ("w1", "w2"):
        await host.workflows(name, 3)
        await store.reclaims.settle([case(name, await grant(name))])
    await host.connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'legal hold'; END $$"
    )
    await host.connection.execute(
        "CREATE TRIGGER hold BEFORE UPDATE ON workflow_execution FOR EACH ROW WHEN (OLD.worker_id = 'w1')"
        " EXECUTE FUNCTION refuse()"
    )

    done = await Parts(store, settings()).finish.run_once()

    assert done.unfinished == 0
    assert await host.count("RUNNING", "w1") == 2
    assert await host.count("RUNNING", "w2") == 0


async def test_an_epoch_that_somebody_locks_holds_up_only_itself(dsn: str, host: HostTables, parts: Parts) -> None:
    """The others of its batch are settled; it is offered again."""
    for name in ("w1", "w2"):
        parts.beat(name)
        await host.workflows(name)
    await parts.grants.run_once()
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM liveness.epoch WHERE worker = 'w1' FOR UPDATE")
    parts.ears.listen(61.0)

    await parts.expiry.run_once()
    assert (await host.count("RUNNING", "w1"), await host.count("RUNNING", "w2")) == (1, 0)
    assert list(parts.book.endings) == ["w1"]
    await transaction.rollback()
    await other.close()
    await parts.expiry.run_once()

    assert await host.count("RUNNING", "w1") == 0


async def test_two_dead_names_that_differ_in_case_do_not_spare_each_other(
    host: HostTables, parts: Parts, store: Store, grant: Grant
) -> None:
    """Lives that we granted ourselves are nobody else's, also after a restart."""
    for name in ("W1", "w1"):
        await grant(name)
        await host.workflows(name)
    for life in (await store.epochs.restorable())[0]:
        parts.book.restore(life.worker, 0.0, 60.0, life.epoch)
    parts.ears.listen(61.0)

    await parts.expiry.run_once()

    assert await host.count("RUNNING") == 0


async def test_what_was_observed_before_leaves_nothing_to_finish(
    host: HostTables, stores: Callable[..., Any], grant: Grant
) -> None:
    """The second observation of the same rows is no news and no remainder."""
    store = await stores(mode="observe")
    await host.workflows("w1", 3)
    for _ in range(2):
        await store.reclaims.settle([case("w1", await grant("w1"))])

    assert await store.reclaims.unfinished() == []
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.remainder") == 0


async def test_observing_does_not_finish_what_acting_began(
    host: HostTables, stores: Callable[..., Any], grant: Grant
) -> None:
    """After a change of mode the host's tables are left as they are."""
    acting, observing = await stores(reclaim_chunk=1), await stores(mode="observe")
    await host.workflows("w1", 3)
    await acting.reclaims.settle([case("w1", await grant("w1"))])

    assert await observing.reclaims.unfinished() == []
    await observing.reclaims.finish(Progress(), ["w1"])

    assert await host.count("PENDING") == 1


async def test_a_worker_that_died_again_is_not_set_online(host: HostTables, store: Store, grant: Grant) -> None:
    """What was owed to its recovery waits for the next one."""
    await host.worker("w1")
    await store.reclaims.settle([case("w1", await grant("w1"))])
    again = await grant("w1")
    await store.epochs.recover({"w1": again})
    await store.reclaims.settle([case("w1", again)])

    await store.epochs.set_back()
    assert await host.worker_status("w1") == ["OFFLINE"]
    await store.epochs.recover({"w1": await grant("w1")})
    await store.epochs.set_back()

    assert await host.worker_status("w1") == ["ONLINE"]


async def test_a_gap_does_not_make_the_last_beat_younger(host: HostTables, parts: Parts) -> None:
    """The recorded instants count the time in which we were deaf."""
    parts.beat("w1")
    await parts.grants.run_once()
    parts.ears.listen(1.0)
    parts.deaf_for(600.0)
    parts.ears.listen(60.0)

    await parts.expiry.run_once()

    age = await host.connection.fetchval(
        "SELECT round(extract(epoch FROM expired_at - last_heartbeat_at))::int FROM liveness.expiration"
    )
    assert age == 661


async def test_publishing_leaves_nothing_behind_on_the_connection(nats: NatsServer) -> None:
    """However many batches go out, there is one inbox for their acknowledgements."""
    bus = Bus(nats.url)
    await bus.connect()
    await bus.ensure_stream("LIVENESS_EVENTS", ["workflow.reclaimed"], 600.0, 1 << 24)
    counts = []
    for number in range(20):
        acknowledged, complaint = await bus.publish_events(
            "LIVENESS_EVENTS", [Event(str(number), "workflow.reclaimed", b"{}")]
        )
        assert (acknowledged, complaint) == ([0], None)
        assert bus._link is not None
        counts.append(len(bus._link._subs))
    await bus.close()

    assert len(set(counts)) == 1


async def test_a_host_that_locks_whole_tables_loses_no_deadlock(
    dsn: str, host: HostTables, store: Store, grant: Grant
) -> None:
    """A migration that takes our tables in the other order never meets us holding one and waiting for the next."""
    other = await asyncpg.connect(dsn)
    await other.execute("SET deadlock_timeout = '10ms'")

    async def migrate() -> int:
        for _ in range(50):
            async with other.transaction():
                await other.execute("LOCK TABLE worker")
                await other.execute("LOCK TABLE task_execution")
                await other.execute("LOCK TABLE workflow_execution")
        return 50

    await host.workflows("w1", 200)
    migrating = asyncio.create_task(migrate())
    while not migrating.done():
        epoch = await grant("w1")
        try:
            await store.reclaims.settle([case("w1", epoch)])
        except Exception as error:  # noqa: BLE001
            assert "lock timeout" in str(error)  # noqa: PT017
        await host.connection.execute(
            "UPDATE workflow_execution SET status = 'RUNNING', worker_id = 'w1' WHERE status = 'PENDING'"
        )

    assert await migrating == 50
    await other.close()
