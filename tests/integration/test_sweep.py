"""The sweep: what memory never knew."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from liveness.admission import Admission
from liveness.answers import Swept
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.settings import Settings
from liveness.store import Found, Life, Progress, Store
from liveness.storms import Storms
from liveness.sweep import Sweep
from tests.conftest import HostTables
from tests.integration.conftest import Grant, case, finish_chunk, standing


class Eye:
    """A sweep whose service has listened for as long as the test says."""

    def __init__(self, store: Store, settings: Settings, listened_for: float = 100.0) -> None:
        self.book = LeaseTable(settings.heartbeat_timeout)
        self.hearing = Hearing(0.0, max_gap=settings.max_gap)
        self.hearing.start(0.0)
        self.hearing.now = listened_for
        self.storms = Storms(max_hold=settings.storm_max_hold, shuffle=lambda _: None)
        self.admission = Admission()
        self.sweep = Sweep(
            admission=self.admission,
            book=self.book,
            hearing=self.hearing,
            storms=self.storms,
            store=store,
            settings=settings,
            clock=standing(store),
        )


@pytest.fixture
async def eye(store: Store, settings: Callable[..., Settings]) -> Eye:
    """A sweep that has listened for 100 s, with the default 60 s and 120 s."""
    return Eye(store, settings())


async def test_no_work_is_taken_of_a_name_whose_beats_were_turned_away(host: HostTables, eye: Eye) -> None:
    """Nobody knows its name, so nobody's is taken who may have beaten: up and silent, or an orphan, it lives."""
    await host.worker("w1", silent_for=100.0)
    await host.workflows("w1")
    await host.workflows("w2", untouched_for=500.0)
    eye.admission.turned_away(50.0, 120.0)

    swept = await eye.sweep.run_once()
    assert (swept.ended, sorted(swept.too_early)) == (0, ["w1", "w2"])
    # It could have been heard by now; but what it promised then has not run out.
    eye.hearing.now = 169.0
    assert (await eye.sweep.run_once()).ended == 0
    eye.hearing.now = 170.0
    assert (await eye.sweep.run_once()).ended == 2


async def test_no_work_is_taken_of_a_name_that_is_turned_away_while_the_sweep_looks(
    host: HostTables, eye: Eye, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the find, as one that is heard in the meantime."""
    await host.workflows("w1", untouched_for=500.0)
    ambiguous = eye.sweep._store.host.ambiguous

    async def meanwhile(names: Sequence[str]) -> Any:
        if names:
            eye.admission.turned_away(eye.hearing.now, 60.0)
        return await ambiguous(names)

    monkeypatch.setattr(eye.sweep._store.host, "ambiguous", meanwhile)

    swept = await eye.sweep.run_once()

    assert (swept.orphaned, swept.ended) == (["w1"], 0)


async def test_the_dead_of_whom_only_postgres_knows_are_found_in_a_flood(host: HostTables, eye: Eye) -> None:
    """Since they are invited they would be in the book if they beat."""
    await host.workflows("w1", untouched_for=500.0)
    eye.admission.turned_away(30.0, 60.0)
    eye.admission.invite(await eye.sweep._store.epochs.expected(), 35.0)
    eye.admission.turned_away(99.0, 60.0)

    assert (await eye.sweep.run_once()).ended == 1


async def test_nothing_is_taken_while_a_gap_has_begun(host: HostTables, eye: Eye) -> None:
    """The first beats of a process that has begun under the name may lie unread; the next sweep takes it."""
    await host.worker("w1", silent_for=61.0)
    await host.workflows("w1")
    clock, eye.sweep._clock = eye.sweep._clock, lambda: 0.75
    assert not eye.hearing.deaf(0.75)

    swept = await eye.sweep.run_once()
    assert (swept.stale, swept.ended) == (["w1"], 0)
    eye.sweep._clock = clock
    assert (await eye.sweep.run_once()).ended == 1


async def test_what_was_touched_behind_what_is_proven_to_be_heard_is_left(
    host: HostTables, store: Store, settings: Callable[..., Settings]
) -> None:
    """By a process that has begun under a name which is up: its first beat is on its way, and it lives."""
    eye = Eye(store, settings(max_gap=30.0))
    eye.sweep._clock = store.leader._clock = store.reclaims._clock = lambda: 20.0
    await host.worker("w1", silent_for=61.0)
    (dead,) = await host.workflows("w1", untouched_for=100.0)
    (living,) = await host.workflows("w1", untouched_for=5.0)

    assert (await eye.sweep.run_once()).items == 1
    assert await host.state(dead) == ("PENDING", None)
    assert await host.state(living) == ("RUNNING", "w1")


async def test_a_stale_worker_that_nobody_heard_is_ended(host: HostTables, eye: Eye) -> None:
    """Up in the registry, silent for longer than heartbeat_timeout, without a lease."""
    await host.worker("w1", silent_for=61.0)
    (workflow,) = await host.workflows("w1")

    swept = await eye.sweep.run_once()

    assert (swept.stale, swept.ended, swept.items) == (["w1"], 1, 1)
    assert await host.state(workflow) == ("PENDING", None)
    assert await host.worker_status("w1") == ["OFFLINE"]
    row = await host.connection.fetchrow(
        "SELECT x.reason, x.last_heartbeat_at = r.last_heartbeat_at AS known FROM liveness.expiration AS x, worker AS r"
    )
    assert row is not None
    assert (row["reason"], row["known"]) == ("stale", True)


@pytest.mark.parametrize(("dead", "crashes"), [(2, 2), (3, 0)])
async def test_many_that_are_found_dead_at_once_count_against_no_work(
    host: HostTables, eye: Eye, dead: int, crashes: int
) -> None:
    """What takes as many as make a storm is no single piece of work."""
    for number in range(dead):
        await host.worker(f"w{number}", silent_for=1_000.0)
        await host.workflows(f"w{number}")

    assert (await eye.sweep.run_once()).ended == dead

    assert await host.connection.fetchval("SELECT count(*) FROM liveness.reclaim WHERE crash") == crashes


async def test_a_stale_worker_that_holds_a_lease_is_left(host: HostTables, eye: Eye) -> None:
    """Its heartbeats reach us; the registry is only not written."""
    await host.worker("w1", silent_for=1_000.0)
    await host.workflows("w1", untouched_for=1_000.0)
    eye.book.beat("w1", eye.hearing.now, Heartbeat())

    swept = await eye.sweep.run_once()

    assert (swept.stale, swept.ended) == ([], 0)
    assert await host.count("RUNNING", "w1") == 1


async def test_a_worker_that_beats_into_the_registry_is_left(host: HostTables, eye: Eye) -> None:
    """Whoever wrote its last_heartbeat_at: it is a beat, of any of its rows."""
    await host.worker("w1", silent_for=1_000.0)
    await host.worker("w1", silent_for=59.0)
    await host.workflows("w1", untouched_for=1_000.0)

    swept = await eye.sweep.run_once()

    assert swept.ended == 0
    assert await host.count("RUNNING", "w1") == 1


async def test_a_beat_recorded_after_the_find_spares(host: HostTables, eye: Eye, monkeypatch: Any) -> None:
    """What the sweep believed is read again in the statement that takes."""
    await host.worker("w1", silent_for=61.0)
    await host.workflows("w1")
    found = eye.sweep._store.host.stale

    async def then_it_beats(silent_for: float) -> Any:
        answer = await found(silent_for)
        await host.connection.execute("UPDATE worker SET last_heartbeat_at = now()")
        return answer

    monkeypatch.setattr(eye.sweep._store.host, "stale", then_it_beats)

    swept = await eye.sweep.run_once()

    assert (swept.stale, swept.ended) == (["w1"], 0)
    assert await host.count("RUNNING", "w1") == 1
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.epoch") == 0


async def test_nothing_is_taken_before_a_ttl_was_listened(
    host: HostTables, store: Store, settings: Callable[..., Settings], grant: Grant
) -> None:
    """Of a name whose last life had a longer ttl, not before that one."""
    await host.worker("w1", silent_for=1_000.0)
    await host.worker("w2", silent_for=1_000.0)
    await grant("w2", ttl=300.0)
    await host.connection.execute("UPDATE liveness.epoch SET ended_at = now()")

    early = await Eye(store, settings(), 59.5).sweep.run_once()
    assert (sorted(early.too_early), early.listen) == (["w1", "w2"], 240.5)
    swept = await Eye(store, settings(), 60.0).sweep.run_once()

    assert (swept.stale, swept.too_early, swept.listen) == (["w1"], ["w2"], 240.0)
    assert (await Eye(store, settings(), 300.0).sweep.run_once()).stale == ["w2"]


@pytest.mark.parametrize("registered", [True, False])
async def test_an_orphan_goes_back(host: HostTables, eye: Eye, registered: bool) -> None:  # noqa: FBT001
    """RUNNING, untouched for long enough, its owner OFFLINE or not in the registry at all."""
    if registered:
        await host.worker("w1", "OFFLINE")
    (orphan,) = await host.workflows("w1", untouched_for=121.0)
    (fresh,) = await host.workflows("w1", untouched_for=100.0)

    swept = await eye.sweep.run_once()

    assert (swept.orphaned, swept.items) == (["w1"], 1)
    assert await host.state(orphan) == ("PENDING", None)
    assert await host.state(fresh) == ("RUNNING", "w1")
    assert await host.outbox() == [("workflow.reclaimed", orphan)]


@pytest.mark.parametrize("status", ["ONLINE", "DEGRADED"])
async def test_old_work_of_a_worker_that_is_up_is_no_orphan(host: HostTables, eye: Eye, status: str) -> None:
    """Long work is not dead work; one row of the name that is up is enough."""
    await host.worker("w1", "OFFLINE")
    await host.worker("w1", status, silent_for=10.0)
    await host.workflows("w1", untouched_for=10_000.0)

    swept = await eye.sweep.run_once()

    assert swept.ended == 0
    assert await host.count("RUNNING", "w1") == 1


async def test_what_is_ambiguous_is_reported_and_left(host: HostTables, eye: Eye, grant: Grant) -> None:
    """No owner, an empty owner, a name that differs only in case, a name that no worker can have."""
    await grant("Living")
    for owner in (None, "", "living", "with space"):
        await host.workflows(owner, untouched_for=1_000.0)
    await host.worker("stale name\t", silent_for=1_000.0)

    swept = await eye.sweep.run_once()

    assert swept.ended == 0
    assert await host.count("RUNNING") == 4
    assert swept.ambiguous == {
        "living": "differs only in case from Living",
        "with space": "no worker can have this name: it contains white space or a control character",
        "stale name\t": "no worker can have this name: it contains white space or a control character",
    }
    assert swept.ownerless == {"workflow": 2, "task": 0}


async def test_a_dry_run_touches_nothing(host: HostTables, eye: Eye) -> None:
    """It says what would be taken."""
    await host.worker("stale", silent_for=61.0)
    await host.workflows("orphan", untouched_for=121.0)

    swept = await eye.sweep.run_once(dry_run=True)

    assert (swept.stale, swept.orphaned, swept.ended) == (["stale"], ["orphan"], 0)
    assert await host.count("RUNNING") == 1
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.epoch") == 0


async def test_a_name_heard_between_find_and_take_is_left(host: HostTables, eye: Eye, monkeypatch: Any) -> None:
    """The book is asked again right before the transaction."""
    await host.worker("w1", silent_for=61.0)
    await host.workflows("w1")
    ambiguous = eye.sweep._store.host.ambiguous

    async def then_it_is_heard(names: Any) -> Any:
        answer = await ambiguous(names)
        eye.book.beat("w1", eye.hearing.now, Heartbeat())
        return answer

    monkeypatch.setattr(eye.sweep._store.host, "ambiguous", then_it_is_heard)

    assert (await eye.sweep.run_once()).ended == 0
    assert await host.count("RUNNING", "w1") == 1


async def test_a_life_that_another_replica_granted_is_adopted(host: HostTables, eye: Eye, grant: Grant) -> None:
    """It is not taken at once, but listened for like any other, under its epoch and ttl."""
    await host.worker("w1", silent_for=61.0)
    await host.workflows("w1")
    epoch = await grant("w1", ttl=45.0)

    swept = await eye.sweep.run_once()

    lease = eye.book.get("w1")
    assert swept.ended == 0
    assert lease is not None
    assert (lease.epoch, lease.ttl) == (epoch, 45.0)
    assert await host.count("RUNNING", "w1") == 1


async def test_what_an_unfinished_reclaim_has_still_to_do_is_left_to_it(
    host: HostTables, stores: Callable[..., Any], settings: Callable[..., Settings], grant: Grant
) -> None:
    """Its rows are no orphans, its worker is not stale, and the name's next life does not answer for them either."""
    store = await stores(reclaim_chunk=1)
    eye = Eye(store, settings())
    await host.worker("w1", silent_for=500.0)
    await host.workflows("w1", 3, untouched_for=500.0)
    former = await grant("w1")
    await store.reclaims.settle([case("w1", former)])

    swept = await eye.sweep.run_once()
    await host.connection.execute("UPDATE worker SET status = 'ONLINE'")
    swept_again = await eye.sweep.run_once()
    await store.reclaims.settle([case("w1", await grant("w1"))])
    progress = Progress()
    for _ in range(3):
        await finish_chunk(store, progress)

    assert (swept.orphaned, swept.ended, swept_again.stale) == ([], 0, [])
    epochs = await host.connection.fetch("SELECT DISTINCT epoch FROM liveness.reclaim")
    assert [row["epoch"] for row in epochs] == [former]
    assert await host.count("PENDING") == 3


async def test_observing_the_same_orphan_again_is_no_news(
    host: HostTables, stores: Callable[..., Any], settings: Callable[..., Settings]
) -> None:
    """Mode observe does not write the same find at every sweep."""
    store = await stores(mode="observe")
    eye = Eye(store, settings(mode="observe"))
    await host.workflows("orphan", untouched_for=121.0)
    await host.worker("stale", silent_for=61.0)

    first, second = await eye.sweep.run_once(), await eye.sweep.run_once()

    assert (first.ended, second.ended) == (2, 0)
    assert await host.count("RUNNING", "orphan") == 1


async def test_a_row_that_is_refused_holds_up_nobody(host: HostTables, eye: Eye) -> None:
    """The others of the sweep are put back; the refused one is left, and its worker is found no more."""
    await host.connection.execute(
        "ALTER TABLE workflow_execution ADD CHECK (kind <> 'poison' OR worker_id IS NOT NULL)"
    )
    for number in range(5):
        await host.worker(f"w{number}", silent_for=61.0)
        await host.workflows(f"w{number}")
    await host.connection.execute("UPDATE workflow_execution SET kind = 'poison' WHERE worker_id = 'w3'")

    swept = await eye.sweep.run_once()

    assert (swept.ended, swept.items, list(swept.refused)) == (5, 4, [])
    assert await host.count("RUNNING", "w3") == 1
    assert await host.worker_status("w3") == ["OFFLINE"]
    assert (await eye.sweep.run_once()).ended == 0


async def test_a_process_that_begins_while_the_sweep_looks_keeps_what_it_claims(
    host: HostTables, eye: Eye, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not heard yet, and the registry still shows its predecessor."""
    await host.worker("w1", silent_for=61.0)
    (old,) = await host.workflows("w1", untouched_for=50.0)
    takeable = eye.sweep._takeable
    claims: list[str] = []

    async def claim_meanwhile(finds: Sequence[Found], swept: Swept) -> list[Found]:
        if not claims:
            claims.extend(await host.workflows("w1"))
        return await takeable(finds, swept)

    monkeypatch.setattr(eye.sweep, "_takeable", claim_meanwhile)
    store = eye.sweep._store
    eye.sweep._clock = store.leader._clock = store.reclaims._clock = time.monotonic
    # However slow this machine is.
    eye.hearing._max_gap = 60.0
    eye.hearing.start(time.monotonic())
    eye.hearing.sent(b"echo", time.monotonic())
    eye.hearing.heard(b"echo", time.monotonic())
    await eye.sweep.run_once()

    assert await host.state(old) == ("PENDING", None)
    assert await host.state(claims[0]) == ("RUNNING", "w1")


async def test_two_sweeps_at_once_take_each_name_once(
    host: HostTables, stores: Callable[..., Any], settings: Callable[..., Settings]
) -> None:
    """A second replica's sweep, and an operator's, change nothing."""
    eyes = [Eye(await stores(), settings()) for _ in range(3)]
    for number in range(20):
        await host.worker(f"w{number}", silent_for=61.0)
        await host.workflows(f"w{number}")

    swept = await asyncio.gather(*(eye.sweep.run_once() for eye in eyes))

    assert sum(one.items for one in swept) == 20
    events = await host.outbox()
    assert len(events) == len(set(events)) == 40


async def test_an_epoch_of_a_life_that_was_never_heard_grows_too(host: HostTables, eye: Eye, store: Store) -> None:
    """Ending an unheard life leaves no open epoch behind, and the next life's number is higher."""
    await host.worker("w1", silent_for=61.0)
    await eye.sweep.run_once()
    ended = await host.connection.fetchval("SELECT epoch FROM liveness.epoch WHERE ended_at IS NOT NULL")

    granted = (await store.epochs.grant([Life("w1", None, None, 10.0)])).epochs

    assert granted["w1"] > ended


@pytest.mark.parametrize("walk_seconds", [0.0, 0.3])
@pytest.mark.parametrize("index", [True, False])
async def test_orphans_are_found_however_far_the_walk_along_their_owners_came(
    host: HostTables, eye: Eye, monkeypatch: Any, walk_seconds: float, *, index: bool
) -> None:
    """It stops where there are too many owners, or no index; what is behind is found all the same, and nobody else."""
    monkeypatch.setattr("liveness.store.host.WALK_SECONDS", walk_seconds)
    if not index:
        await host.connection.execute("DROP INDEX workflow_execution_owner_idx")
    for name in ("a", "c", "e", "g"):
        await host.worker(f"up-{name}")
    for name in ("up-a", "b", "up-c", "d", "d", "up-e", "f", "up-g", "h"):
        await host.workflows(name, untouched_for=121.0)
    await host.workflows("i", untouched_for=119.0)
    await host.workflows("j", status="COMPLETED", untouched_for=121.0)

    # The second time, it goes through all rows at once where it had stopped.
    for _ in range(2):
        swept = await eye.sweep.run_once(dry_run=True)
        assert sorted(swept.orphaned) == ["b", "d", "f", "h"]


async def test_rows_without_an_owner_are_counted(host: HostTables, eye: Eye) -> None:
    """NULL and nothing alike, once nobody has touched them for a while."""
    await host.workflows(None, 2, untouched_for=121.0)
    await host.workflows("", untouched_for=121.0)
    await host.workflows(None, untouched_for=119.0)
    await host.workflows("w1", untouched_for=121.0)

    assert (await eye.sweep.run_once(dry_run=True)).ownerless == {"workflow": 3, "task": 0}
