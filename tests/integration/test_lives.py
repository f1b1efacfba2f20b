"""Epochs as Postgres keeps them: grants, changes, recoveries, restores, and what is written into the registry."""

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from liveness.store import Life, Store
from tests.conftest import HostTables
from tests.integration.conftest import Grant, case


async def test_epochs_grow_for_each_name(host: HostTables, store: Store, grant: Grant) -> None:
    """Every life has a number above those before it."""
    epochs = []
    for _ in range(3):
        epochs.append(await grant("w1"))
        await store.reclaims.settle([case("w1", epochs[-1])])

    assert epochs == sorted(set(epochs))
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.epoch WHERE ended_at IS NULL") == 0


async def test_names_that_the_host_knows_are_told_apart(host: HostTables, store: Store) -> None:
    """A row in the registry or RUNNING work makes a name known; finished work does not."""
    await host.worker("registered", "OFFLINE")
    await host.workflows("works")
    await host.tasks("works too")
    await host.workflows("worked", status="COMPLETED")

    known = await store.epochs.known(["registered", "works", "works too", "worked", "invented"])

    assert known == {"registered", "works", "works too"}


async def test_names_that_may_live_and_have_no_epoch_are_expected(host: HostTables, store: Store, grant: Grant) -> None:
    """Up in the registry, or owner of RUNNING work: as at a start."""
    for name, status in (("up", "ONLINE"), ("doubted", "DEGRADED"), ("down", "OFFLINE"), ("lives", "ONLINE")):
        await host.worker(name, status)
    await host.workflows("works")
    await host.workflows("worked", status="COMPLETED")
    await grant("lives")

    assert sorted(await store.epochs.expected()) == ["doubted", "up", "works"]


async def test_what_changed_in_a_life_is_kept(store: Store, grant: Grant) -> None:
    """Ttl and incarnation are restored as they were last, and only of lives that are open."""
    epoch = await grant("w1", ttl=10.0, incarnation="a")
    over = await grant("w2", ttl=10.0)
    await store.reclaims.settle([case("w2", over)])

    await store.epochs.update([Life("w1", epoch, "b", 600.0), Life("w2", over, "b", 600.0)])

    open_lives, _ = await store.epochs.restorable()
    assert open_lives == [Life("w1", epoch, "b", 600.0)]


async def test_the_newest_hello_of_an_incarnation_is_kept(store: Store) -> None:
    """An older one, or none, takes nothing back; of another incarnation it begins anew."""
    granted = await store.epochs.grant([Life("w1", None, "a", 10.0, 5.25)])
    epoch = granted.epochs["w1"]
    assert await store.epochs.open_lives(["w1"]) == [Life("w1", epoch, "a", 10.0, 5.25)]
    for stated, kept in ((4.0, 5.25), (None, 5.25), (7.123456789012345, 7.123456789012345)):
        await store.epochs.update([Life("w1", epoch, "a", 10.0, stated)])
        assert await store.epochs.open_lives(["w1"]) == [Life("w1", epoch, "a", 10.0, kept)]
    await store.epochs.update([Life("w1", epoch, None, 20.0)])
    await store.epochs.grant([Life("w1", None, "a", 20.0, 6.0)])
    assert await store.epochs.open_lives(["w1"]) == [Life("w1", epoch, "a", 20.0, 7.123456789012345)]

    await store.epochs.update([Life("w1", epoch, "b", 20.0)])
    assert await store.epochs.restorable() == ([Life("w1", epoch, "b", 20.0)], [])
    await store.epochs.update([Life("w1", epoch, "c", 20.0, 1.0)])
    assert await store.epochs.open_lives(["w1"]) == [Life("w1", epoch, "c", 20.0, 1.0)]


async def test_whoever_may_live_is_restored(host: HostTables, store: Store, grant: Grant) -> None:
    """Open lives; names that are up; owners of RUNNING work, known to the registry or not, marked OFFLINE or not."""
    await host.worker("up")
    await host.worker("degraded", "DEGRADED")
    await host.worker("offline", "OFFLINE")
    await host.worker("offline but works", "OFFLINE")
    await host.workflows("offline but works")
    await host.tasks("unknown")
    await host.workflows("finished", status="COMPLETED")
    await host.workflows(None)
    await grant("open", ttl=600.0)
    await store.reclaims.settle([case("up", await grant("up", ttl=300.0), spare_within=None)])
    await host.connection.execute("UPDATE worker SET status = 'ONLINE' WHERE worker_name = 'up'")

    open_lives, names = await store.epochs.restorable()

    assert [(life.worker, life.ttl) for life in open_lives] == [("open", 600.0)]
    assert {life.worker: life.ttl for life in names} == {
        "up": 300.0,
        "degraded": None,
        "offline but works": None,
        "unknown": None,
    }


async def test_a_recovered_name_is_told_once_and_set_back(host: HostTables, store: Store, grant: Grant) -> None:
    """worker.recovered is written, and the rows that WE set OFFLINE are what they were."""
    await host.worker("w1", "ONLINE")
    await host.worker("w1", "DEGRADED")
    await host.worker("w1", "OFFLINE")
    former = await grant("w1", incarnation="a")
    await store.reclaims.settle([case("w1", former)])
    epoch = await grant("w1", incarnation="a")

    recoveries = await store.epochs.recover({"w1": epoch})
    await store.epochs.set_back()

    assert [(one.worker, one.epoch, one.incarnation, one.reason, one.new_epoch) for one in recoveries] == [
        ("w1", former, "a", "lapsed", epoch)
    ]
    assert await host.worker_status("w1") == ["ONLINE", "DEGRADED", "OFFLINE"]
    assert await host.outbox() == [("worker.expired", "w1"), ("worker.recovered", "w1")]
    assert await store.epochs.recover({"w1": epoch}) == []


async def test_a_row_that_the_host_changed_is_not_set_back(host: HostTables, store: Store, grant: Grant) -> None:
    """We undo only what we did."""
    await host.worker("w1")
    await store.reclaims.settle([case("w1", await grant("w1"))])
    await host.connection.execute("UPDATE worker SET status = 'DEGRADED'")

    await store.epochs.recover({"w1": await grant("w1")})
    await store.epochs.set_back()

    assert await host.worker_status("w1") == ["DEGRADED"]
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.expiration WHERE offlined IS NOT NULL") == 0


async def test_a_locked_row_is_set_back_later(dsn: str, host: HostTables, store: Store, grant: Grant) -> None:
    """The host is not waited for."""
    await host.worker("w1")
    await store.reclaims.settle([case("w1", await grant("w1"))])
    await store.epochs.recover({"w1": await grant("w1")})
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM worker FOR UPDATE")

    await store.epochs.set_back()
    assert await host.worker_status("w1") == ["OFFLINE"]
    await transaction.rollback()
    await other.close()
    await store.epochs.set_back()

    assert await host.worker_status("w1") == ["ONLINE"]


async def test_who_has_died_again_is_not_set_back(host: HostTables, store: Store, grant: Grant) -> None:
    """Though it lived when it was asked for who is owed something: nobody is told to dispatch to the dead."""
    await host.worker("w1")
    await store.reclaims.settle([case("w1", await grant("w1"))])
    epoch = await grant("w1")
    await store.epochs.recover({"w1": epoch})
    fetch = store.database.fetch

    async def died_meanwhile(statement: str, *parameters: Any, **how: Any) -> Any:
        rows = await fetch(statement, *parameters, **how)
        await store.reclaims.settle([case("w1", epoch)])
        return rows

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.database, "fetch", died_meanwhile)
        await store.epochs.set_back()
    assert await host.worker_status("w1") == ["OFFLINE"]
    await store.epochs.recover({"w1": await grant("w1")})
    await store.epochs.set_back()

    assert await host.worker_status("w1") == ["ONLINE"]


async def test_a_released_worker_that_starts_again_has_not_recovered(
    host: HostTables, store: Store, grant: Grant
) -> None:
    """It is up again, and no event says more."""
    await host.worker("w1")
    await store.reclaims.settle([case("w1", await grant("w1"), reason="released", overdue=None)])

    recoveries = await store.epochs.recover({"w1": await grant("w1")})
    await store.epochs.set_back()

    assert [one.reason for one in recoveries] == ["released"]
    assert await host.outbox() == [("worker.released", "w1")]
    assert await host.worker_status("w1") == ["ONLINE"]


async def test_a_checkpoint_refreshes_in_one_statement_and_never_backwards(host: HostTables, store: Store) -> None:
    """The age of the last beat is written, unless somebody wrote a younger one."""
    await host.worker("w1", silent_for=100.0)
    await host.worker("w1", silent_for=1.0)
    await host.worker("w2", silent_for=100.0)

    await store.host.checkpoint({"w1": 5.0, "unknown": 1.0})

    rows = await host.connection.fetch(
        "SELECT worker_name, round(extract(epoch FROM now() - last_heartbeat_at))::int AS age FROM worker ORDER BY 1, 2"
    )
    assert [(row["worker_name"], row["age"]) for row in rows] == [("w1", 1), ("w1", 5), ("w2", 100)]


async def test_unknown_workers_are_registered_once(host: HostTables, store: Store) -> None:
    """And only unknown ones."""
    await host.worker("known", "OFFLINE")

    await store.host.register(["known", "new"])
    await store.host.register(["known", "new"])

    assert await host.worker_status("known") == ["OFFLINE"]
    assert await host.worker_status("new") == ["ONLINE"]


async def test_names_that_differ_only_in_case_are_found(
    host: HostTables, stores: Callable[..., Any], grant: Grant
) -> None:
    """From open lives and from names that are up; not from the name itself."""
    store = await stores()
    await host.worker("Up")
    await grant("Open")

    assert await store.host.ambiguous(["up", "Up", "OPEN", "other"]) == {"up": "Up", "OPEN": "Open"}
    assert await store.host.ambiguous([]) == {}
