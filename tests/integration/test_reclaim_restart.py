"""A worker that restarted under its old name: what is the former process's goes back, what is the new one's stays."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from liveness.store import Former, Life, Progress, Store
from liveness.verdicts import Outcome
from tests.conftest import SOON, HostTables, look_again
from tests.integration.conftest import Grant, case, finish_chunk


def restarted(worker: str, epoch: int | None, incarnation: str | None = "a", **fields: Any) -> Any:
    """Return the case of a life that a restart ended."""
    values: dict[str, Any] = {"incarnation": incarnation, "reason": "restarted", "overdue": None}
    return case(worker, epoch, **(values | fields))


async def test_a_restart_takes_only_what_was_touched_before_it(host: HostTables, store: Store, grant: Grant) -> None:
    """Rows last touched before the new process began go back; the others are the new one's."""
    epoch = await grant("w1", incarnation="a")
    (old,) = await host.workflows("w1", untouched_for=30.0)
    (new,) = await host.workflows("w1", untouched_for=10.0)

    await store.reclaims.settle([restarted("w1", epoch, untouched_for=20.0)])
    await grant("w1", incarnation="b")
    await finish_chunk(store, Progress())

    assert await host.state(old) == ("PENDING", None)
    assert await host.state(new) == ("RUNNING", "w1")


async def test_what_passed_since_a_case_was_measured_counts(host: HostTables, store: Store, grant: Grant) -> None:
    """Ages grow until the transaction begins: what they point at stays where it is."""
    epoch = await grant("w1", incarnation="a")
    (old,) = await host.workflows("w1", untouched_for=200.0)
    (new,) = await host.workflows("w1", untouched_for=50.0)

    await store.reclaims.settle(
        [
            restarted(
                "w1", epoch, untouched_for=20.0, silent_for=30.0, overdue=10.0, measured_at=time.monotonic() - 100.0
            )
        ]
    )

    assert await host.state(old) == ("PENDING", None)
    assert await host.state(new) == ("RUNNING", "w1")
    ages = await host.connection.fetchrow(
        "SELECT round(untouched_for)::int, extract(epoch FROM expired_at - last_heartbeat_at)::int,"
        " extract(epoch FROM expired_at - lapsed_at)::int FROM liveness.expiration"
    )
    assert tuple(ages or ()) == (120, 130, 110)


async def test_what_a_case_says_is_taken_as_it_is_when_it_was_not_measured(
    host: HostTables, store: Store, grant: Grant
) -> None:
    """An age that nobody measured by the loop's clock does not grow."""
    epoch = await grant("w1", incarnation="a")

    await store.reclaims.settle([restarted("w1", epoch, untouched_for=20.0)])

    assert await host.connection.fetchval("SELECT untouched_for FROM liveness.expiration") == 20.0


async def test_waiting_for_a_connection_makes_no_row_look_old(host: HostTables, store: Store, grant: Grant) -> None:
    """What the new process claims while the transaction waits for its turn is the new process's."""
    epoch = await grant("w1", incarnation="a")
    (old,) = await host.workflows("w1", untouched_for=1.0)
    pool = store.database._pool
    taken = [await pool.acquire() for _ in range(pool.get_max_size())]

    settling = asyncio.create_task(
        store.reclaims.settle([restarted("w1", epoch, untouched_for=0.0, measured_at=time.monotonic())])
    )
    (new,) = await host.workflows("w1")
    for connection in taken:
        await pool.release(connection)
    await settling

    assert await host.state(old) == ("PENDING", None)
    assert await host.state(new) == ("RUNNING", "w1")


async def test_waiting_within_the_transaction_does_not_count(
    dsn: str, host: HostTables, stores: Callable[..., Any], grant: Grant
) -> None:
    """Ages end where the transaction begins, not where it has its locks: else work of the former process would stay."""
    store = await stores(lock_timeout=SOON)
    epoch = await grant("w1", incarnation="a")
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM liveness.leader FOR UPDATE")

    settling = asyncio.create_task(
        store.reclaims.settle([restarted("w1", epoch, untouched_for=0.0, measured_at=time.monotonic())])
    )
    async with asyncio.timeout(SOON):
        while not await host.connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND clock_timestamp() - xact_start > interval '1 s'"
        ):
            assert not settling.done()
            await look_again()
    await transaction.rollback()
    await other.close()
    await settling

    assert await host.connection.fetchval("SELECT untouched_for FROM liveness.expiration") < 0.9


@pytest.mark.parametrize("reason", ["restarted", "released"])
async def test_what_the_ended_process_touched_last_is_not_left_because_the_reckoning_is_rough(
    host: HostTables, store: Store, grant: Grant, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """When the transaction began is known to some 50 ms: where nobody can have claimed since, none of them are left."""
    epoch = await grant("w1", incarnation="a")
    (touched,) = await host.workflows("w1")
    # When it wants to begin, asks how long ago that was, and is answered, however busy the machine is.
    readings = iter([0.0, 0.0, 0.04])
    monkeypatch.setattr(store.leader, "_clock", lambda: next(readings))

    await store.reclaims.settle([restarted("w1", epoch, reason=reason, untouched_for=0.0, told=True, measured_at=0.0)])

    assert await host.state(touched) == ("PENDING", None)


async def test_a_restart_is_told_as_one_and_is_no_recovery(host: HostTables, store: Store, grant: Grant) -> None:
    """The events name the former process, even when the epoch names the next one already; nobody is set OFFLINE."""
    await host.worker("w1")
    epoch = await grant("w1", incarnation="a")
    (workflow,) = await host.workflows("w1", untouched_for=5.0)
    await store.epochs.update([Life("w1", epoch, "b", 10.0)])

    await store.reclaims.settle([restarted("w1", epoch, untouched_for=1.0)])
    offline = await host.worker_status("w1")
    unfinished = await store.reclaims.unfinished()
    recoveries = await store.epochs.recover({"w1": (again := await grant("w1", incarnation="b"))})

    assert offline == ["ONLINE"]
    assert unfinished == []
    assert [(one.reason, one.incarnation, one.new_epoch) for one in recoveries] == [("restarted", "a", again)]
    rows = await host.connection.fetch(
        "SELECT type, coalesce(items->0->>0, subject) AS subject, told->>'reason' AS reason,"
        " told->>'incarnation' AS incarnation FROM liveness.outbox ORDER BY seq"
    )
    assert [tuple(row) for row in rows] == [
        ("worker.expired", "w1", "restarted", "a"),
        ("workflow.reclaimed", workflow, "restarted", "a"),
    ]


async def test_a_restart_of_a_process_without_a_name_names_none(host: HostTables, store: Store, grant: Grant) -> None:
    """What the epoch says by then is the next process's incarnation, and is not put in the former one's place."""
    epoch = await grant("w1", incarnation="b")
    lapsed = await grant("w2", incarnation="b")

    await store.reclaims.settle([restarted("w1", epoch, incarnation=None), case("w2", lapsed, incarnation=None)])

    rows = await host.connection.fetch("SELECT worker, incarnation FROM liveness.expiration ORDER BY worker")
    assert [tuple(row) for row in rows] == [("w1", None), ("w2", "b")]


@pytest.mark.parametrize(
    ("has", "wants", "gets"), [("a", "a", True), ("a", None, True), (None, "b", True), ("a", "b", False)]
)
async def test_an_open_epoch_is_given_only_to_its_own_life(
    store: Store, grant: Grant, has: str | None, wants: str | None, *, gets: bool
) -> None:
    """A life of another incarnation gets none, and is told whose it is; the others of its batch get theirs."""
    epoch = await grant("w1", incarnation=has)

    granted = await store.epochs.grant([Life("w1", None, wants, 99.0), Life("w2", None, None, 10.0)])

    assert granted.epochs.get("w1") == (epoch if gets else None)
    assert granted.others == ([] if gets else [Life("w1", epoch, has, 10.0)])
    assert "w2" in granted.epochs
    kept = Life("w1", epoch, wants or has, 99.0) if gets else Life("w1", epoch, has, 10.0)
    assert await store.epochs.open_lives(["w1"]) == [kept]


async def test_former_incarnations_are_known_for_a_day(host: HostTables, store: Store, grant: Grant) -> None:
    """The newest eight that a restart ended, of names that live; also of one that waits for its next epoch."""

    async def lives(worker: str, *incarnations: str | None, reason: str = "restarted") -> list[int]:
        epochs = [await grant(worker, incarnation=incarnations[0])]
        for incarnation, following in zip(incarnations, [*incarnations[1:], "now"], strict=True):
            await store.reclaims.settle([restarted(worker, epochs[-1], incarnation, reason=reason)])
            epochs.append(await grant(worker, incarnation=following))
        return epochs

    many = await lives("many", *(f"m{number}" for number in range(10)))
    await lives("lapsed", "a", reason="lapsed")
    await lives("nameless", None)
    await lives("long ago", "a")
    await host.connection.execute(
        "UPDATE liveness.expiration SET expired_at = now() - interval '25 hours' WHERE worker = 'long ago'"
    )
    await store.reclaims.settle([case("gone", (await lives("gone", "a"))[-1])])
    one = await lives("one", "a")
    last = await grant("ungranted", incarnation="a")
    await store.reclaims.settle([restarted("ungranted", last, "a")])

    newest = [Former("many", f"m{number}", many[number]) for number in range(2, 10)]
    assert await store.epochs.formers(None) == [*newest, Former("one", "a", one[0]), Former("ungranted", "a", last)]
    assert await store.epochs.formers(["one", "unknown"]) == [Former("one", "a", one[0])]


async def test_how_long_ago_a_name_ended_is_known(host: HostTables, store: Store, grant: Grant) -> None:
    """By its last life, if none is open."""
    for _ in range(2):
        await store.reclaims.settle([case("ended", await grant("ended"))])
    await host.connection.execute("UPDATE liveness.epoch SET ended_at = now() - interval '50 s'")
    await host.connection.execute(
        "UPDATE liveness.epoch SET ended_at = now() - interval '90 s'"
        " WHERE epoch = (SELECT min(epoch) FROM liveness.epoch)"
    )
    await store.reclaims.settle([case("lives", await grant("lives"))])
    await grant("lives")

    ago = await store.epochs.ended_ago(["ended", "lives", "unknown"])

    assert list(ago) == ["ended"]
    assert 50.0 <= ago["ended"].ago < 50.0 + SOON


async def test_who_holds_work_that_was_not_touched_for_long_is_known(host: HostTables, store: Store) -> None:
    """Each by an age of its own; finished work is nobody's."""
    await host.workflows("w1", untouched_for=50.0)
    await host.workflows("w2", untouched_for=50.0)
    await host.workflows("done", untouched_for=50.0, status="COMPLETED")
    await host.tasks("w3")
    ages = {"w1": 40.0, "w2": 60.0, "done": 40.0, "w3": -1.0, "unknown": 0.0}

    found = await store.host.holding({name: ("a", age) for name, age in ages.items()})
    assert found == {"w1": pytest.approx(40.0), "w3": pytest.approx(-1.0)}
    assert await store.host.holding({"w1": ("a", 1e300)}) == {}


async def test_a_process_of_which_a_life_has_ended_was_there_by_then(
    host: HostTables, store: Store, grant: Grant
) -> None:
    """A hello of it that is delivered late does not make what it has touched since look like a former process's."""
    await store.reclaims.settle([case("w1", await grant("w1", incarnation="a"), incarnation="a")])
    await host.connection.execute("UPDATE liveness.expiration SET expired_at = now() - interval '60 s'")
    await host.workflows("w1", untouched_for=50.0)

    assert await store.host.holding({"w1": ("a", 10.0)}) == {}
    assert await store.host.holding({"w1": ("b", 10.0)}) == {"w1": pytest.approx(10.0)}
    await host.workflows("w1", untouched_for=70.0)
    found = await store.host.holding({"w1": ("a", 10.0)})
    assert 60.0 <= found["w1"] < 60.0 + SOON


async def test_whose_work_is_not_all_back_is_known(host: HostTables, stores: Callable[..., Any], grant: Grant) -> None:
    """Until the last row that a reclaim fixed is back."""
    store = await stores(reclaim_chunk=2)
    await host.workflows("w1", 3)
    await host.workflows("w2", 3)
    await host.workflows("w3", 3)
    for name in ("w1", "w3"):
        verdicts = await store.reclaims.settle([case(name, await grant(name))])
        assert verdicts[0].outcome is Outcome.ENDED

    owing = await store.reclaims.owing(["w1", "w2"])
    await finish_chunk(store, Progress())

    assert owing == {"w1"}
    assert await store.reclaims.owing(["w1", "w2"]) == set()


@pytest.mark.parametrize("mode", ["act", "observe"])
async def test_news_that_concern_no_worker_wake_the_relay(stores: Callable[..., Any], mode: str) -> None:
    """An event is added as it is, observed in mode observe, and whoever listens is told."""
    store: Store = await stores(mode=mode)
    woken: asyncio.Queue[None] = asyncio.Queue()
    listening = asyncio.create_task(store.outbox.listen(lambda: woken.put_nowait(None)))
    async with asyncio.timeout(SOON):
        # It listens now.
        await woken.get()

        await store.outbox.add("liveness.storm", "liveness.storm", {"group": "ü", "held": 3})
        await woken.get()
    listening.cancel()

    (event,) = await store.outbox.pending(0, 10)
    assert (event.type, event.subject, event.worker) == ("liveness.storm", "liveness.storm", "")
    assert event.observed is (mode == "observe")
    assert event.data == '{"group":"ü","held":3}'
