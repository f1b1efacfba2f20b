"""What Postgres knows of shares: the hash beside epochs and events, and names that only it can see together."""

from collections.abc import Callable
from typing import Any

import pytest

from liveness.settings import Settings
from liveness.store import Life, Store, reclaims
from liveness.subjects import Subjects
from tests.conftest import HostTables
from tests.integration.conftest import case
from tests.integration.running import Serve
from tests.integration.shares import NAMES, owned

# The same but for case, and of two shares of three. (Of two shares they never are: the last bit of the hash is that of
# all letters' last bits.)
LOWER, UPPER = "w1", "W1"


@pytest.fixture
async def shares(stores: Callable[..., Any], settings: Callable[..., Settings]) -> list[Store]:
    """The stores of both shares, and behind them one of everybody; the shares lead."""
    del settings
    opened = [await stores(leads=False, shard=f"{index}/2") for index in range(2)]
    for store in opened:
        assert await store.leader.take(0.0)
    return [*opened, await stores(leads=False)]


def names(lives: list[Life]) -> list[str]:
    """Return whose lives these are."""
    return sorted(life.worker for life in lives)


async def grant(store: Store, *workers: str) -> dict[str, int]:
    """Grant epochs."""
    return dict((await store.epochs.grant([Life(worker, None, None, 10.0) for worker in workers])).epochs)


def test_the_names_are_of_two_shares() -> None:
    """Else what is shown here would be shown of one."""
    assert Subjects().hash_of(LOWER) % 3 != Subjects().hash_of(UPPER) % 3


async def test_a_share_reads_its_own_lives(shares: list[Store], host: HostTables) -> None:
    """By the hash that stands with them; one without, of a service of before, by its name."""
    await grant(shares[0], *NAMES)
    await host.connection.execute("UPDATE liveness.epoch SET hash = NULL WHERE worker IN ('w1', 'x')")

    for index in range(2):
        assert names(await shares[index].epochs.open_lives(None)) == sorted(owned(index))
        assert names((await shares[index].epochs.restorable())[0]) == sorted(owned(index))
    assert names(await shares[2].epochs.open_lives(None)) == sorted(NAMES)


async def test_what_a_share_does_not_own_stays_in_postgres(shares: list[Store], host: HostTables) -> None:
    """Ten million rows are not read to keep a tenth of them."""
    await grant(shares[0], *NAMES)
    statement = shares[0].epochs._statements["restore_epochs"]
    rows = await host.connection.fetch(statement, None)

    assert sorted(row["worker"] for row in rows) == sorted(owned(0))


async def test_what_was_kept_under_another_prefix_is_told_by_names(stores: Callable[..., Any]) -> None:
    """There the same names have other hashes; nobody's life, and no event, is left to nobody."""
    former = await stores(leads=False, shard="0/4", subject_prefix="farm")
    assert await former.leader.take(0.0)
    epochs = await grant(former, *NAMES)
    await former.reclaims.settle([case(worker, epochs[worker]) for worker in NAMES[:3]])
    await former.leader.release()
    opened = [await stores(leads=False, shard=f"{index}/4") for index in range(4)]
    for store in opened:
        assert await store.leader.take(0.0)

    lives = [await store.epochs.open_lives(None) for store in opened]
    assert [names(some) for some in lives] == [sorted({*owned(index, 4)} - {*NAMES[:3]}) for index in range(4)]
    events = [{event.worker for event in await store.outbox.pending(0, 100)} for store in opened]
    assert events == [{*owned(index, 4)} & {*NAMES[:3]} for index in range(4)]


async def test_a_life_gets_its_hash_when_it_is_heard_again(shares: list[Store], host: HostTables) -> None:
    """So those of before are not looked at by their names for ever."""
    await grant(shares[0], LOWER)
    await host.connection.execute("UPDATE liveness.epoch SET hash = NULL")
    await grant(shares[0], LOWER)

    assert await host.connection.fetchval("SELECT hash FROM liveness.epoch") == Subjects().kept_hash_of(LOWER)


async def test_a_share_finishes_and_tells_what_it_began(shares: list[Store], host: HostTables) -> None:
    """All that is written of an end has the name's hash: the reclaim that is not finished, and each event."""
    for worker in NAMES:
        await host.worker(worker)
        await host.workflows(worker, 2)
    for index in range(2):
        epochs = await grant(shares[index], *owned(index))
        # The last one was never heard.
        cases = [case(worker, epochs[worker]) for worker in owned(index)]
        await shares[index].reclaims.settle(cases)
    await host.connection.execute("UPDATE liveness.expiration SET finished_at = NULL")

    hashes = {
        row["worker"]: row["hash"] for row in await host.connection.fetch("SELECT worker, hash FROM liveness.outbox")
    }
    assert hashes == {worker: Subjects().kept_hash_of(worker) for worker in NAMES}
    for index in range(2):
        assert sorted(await shares[index].reclaims.unfinished()) == sorted(owned(index))
        told = await shares[index].outbox.pending(0, 1_000)
        assert {event.worker for event in told} == set(owned(index))
        assert len(told) == 3 * len(owned(index))
        assert (await shares[index].outbox.depth())[0] == len(told)
    # As a service of before leaves them.
    await host.connection.execute("UPDATE liveness.epoch SET hash = NULL")
    for index in range(2):
        assert sorted(await shares[index].reclaims.unfinished()) == sorted(owned(index))


async def test_reclaims_of_others_that_are_not_finished_hide_none_of_ours(
    shares: list[Store], host: HostTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host may keep any number of their rows locked."""
    monkeypatch.setattr(reclaims, "UNFINISHED_AT_ONCE", 1)
    for index in (1, 0):
        epochs = await grant(shares[index], owned(index)[0])
        await shares[index].reclaims.settle([case(worker, epoch) for worker, epoch in epochs.items()])
    await host.connection.execute("UPDATE liveness.expiration SET finished_at = NULL")

    assert await shares[0].reclaims.unfinished() == owned(0)[:1]


async def test_a_life_that_was_never_heard_has_its_hash(shares: list[Store], host: HostTables) -> None:
    """The sweep opens it only to end it."""
    await host.workflows(LOWER)
    await shares[0].reclaims.settle([case(LOWER, None, silent_for=None, overdue=None, reason="orphaned")])

    assert await host.connection.fetchval("SELECT hash FROM liveness.epoch") == Subjects().kept_hash_of(LOWER)


async def test_events_of_others_hide_none_of_ours(shares: list[Store], host: HostTables) -> None:
    """Nor do those without a hash that a service of before has left, however many are before them."""
    for worker in (*[owned(1)[0]] * 5, owned(0)[0]):
        await host.connection.execute(
            "INSERT INTO liveness.outbox (type, subject, worker, told) VALUES ('worker.expired', $1, $1, '{}')", worker
        )

    assert [event.worker for event in await shares[0].outbox.pending(0, 2)] == [owned(0)[0]]
    assert [event.worker for event in await shares[1].outbox.pending(0, 2)] == [owned(1)[0]] * 2


async def test_news_of_a_storm_are_told_by_who_has_it(shares: list[Store]) -> None:
    """They concern no worker, and each has its own; what a service of before left is told by one of them."""
    for index in (0, 1):
        await shares[index].outbox.add("liveness.storm", f"server{index}", {})

    for index in (0, 1):
        assert [event.subject for event in await shares[index].outbox.pending(0, 10)] == [f"server{index}"]


async def test_news_of_a_storm_without_a_hash_are_told_once(shares: list[Store], host: HostTables) -> None:
    """By whoever it is."""
    await host.connection.execute(
        "INSERT INTO liveness.outbox (type, subject, worker, told) VALUES ('liveness.storm', 's', '', '{}')"
    )

    assert sum([len(await shares[index].outbox.pending(0, 10)) for index in (0, 1)]) == 1


async def test_names_that_differ_only_in_case_are_seen_across_shares(
    serve: Serve, host: HostTables, stores: Callable[..., Any]
) -> None:
    """One of them may be how the other one's owner writes it: neither is given a lease that could lapse."""
    lower, upper = (Subjects().hash_of(name) % 3 for name in (LOWER, UPPER))
    other = await stores(leads=False, shard=f"{lower}/3")
    await other.leader.take(0.0)
    await grant(other, LOWER)
    (workflow,) = await host.workflows(UPPER, untouched_for=3600.0)

    service = await serve(shard=f"{upper}/3")
    assert service.parts is not None
    assert service.parts.book.get(UPPER) is None
    service.parts.sweep.listening_since = -3600.0
    swept = await service.parts.sweep.run_once()
    assert swept.ambiguous == {UPPER: f"differs only in case from {LOWER}"}
    assert await host.state(workflow) == ("RUNNING", UPPER)


async def test_names_that_differ_only_in_case_and_that_nobody_knows_are_seen_across_shares(
    serve: Serve, host: HostTables
) -> None:
    """Both hold work, and neither is in the registry, nor was ever heard."""
    for name in (LOWER, UPPER):
        await host.workflows(name)
    service = await serve(shard=f"{Subjects().hash_of(UPPER) % 3}/3")

    assert service.parts is not None
    assert len(service.parts.book) == 0
