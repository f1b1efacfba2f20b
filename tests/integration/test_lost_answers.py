"""Postgres commits, and we never learn of it: the answer was lost on its way."""

import math
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import cast

import msgspec
import pytest

from liveness.errors import DatabaseAwayError
from liveness.expiry import Expiry
from liveness.grants import Grants
from liveness.leases import Heard, LeaseTable
from liveness.messages import Heartbeat, Superseded
from liveness.probes import Probes
from liveness.settings import Settings
from liveness.store import Store
from liveness.store.reclaims import Reclaims
from liveness.storms import Storms
from liveness.verdicts import Case, Outcome, Verdict
from liveness.wakes import Wakes
from tests.conftest import HostTables
from tests.integration.conftest import Grant, case
from tests.unit.makers import Ears, lease_of

TTL = 10.0


class Forgetful:
    """Reclaims whose next answer is lost when the test says so; the transaction is committed all the same."""

    def __init__(self, reclaims: Reclaims) -> None:
        self.loses = False
        self._reclaims = reclaims

    async def settle(self, cases: Sequence[Case]) -> Sequence[Verdict]:
        """Settle, and perhaps say nothing."""
        verdicts = await self._reclaims.settle(cases)
        if self.loses:
            self.loses = False
            raise DatabaseAwayError("committed, and the answer was lost")
        return verdicts


class Parts:
    """The way out and the grants of one service over a real store, and a worker `w1` that beats as "a"."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.book = LeaseTable(TTL)
        # The store reckons with the loop's real clock: this one is a little ahead of it, and in whole seconds.
        self.ears = Ears(float(math.ceil(time.monotonic())))
        self.reclaims = Forgetful(store.reclaims)
        self.told: list[Superseded] = []
        losing = cast(
            "Store",
            SimpleNamespace(reclaims=self.reclaims, epochs=store.epochs, host=store.host, outbox=store.outbox),
        )
        self.grants = Grants(
            book=self.book,
            hearing=self.ears.hearing,
            store=losing,
            settings=settings,
            publish=self.publish,
            clock=lambda: self.ears.time,
        )
        self.expiry = Expiry(
            chunk=2_000,
            book=self.book,
            hearing=self.ears.hearing,
            storms=Storms(max_hold=600.0, shuffle=lambda _: None),
            probes=Probes(book=self.book, ask=lambda *_: False, on_answer=lambda *_: None),
            store=losing,
            clock=lambda: self.ears.time,
            wakes=Wakes(),
        )

    async def publish(self, _subject: str, payload: bytes) -> bool:
        """Note what the worker is told."""
        self.told.append(msgspec.json.decode(payload, type=Superseded))
        return True

    def beat(self) -> Heard:
        """Let `w1` beat."""
        return self.book.beat("w1", self.ears.stamp(), Heartbeat(incarnation="a"), self.ears.time)

    async def rounds(self) -> None:
        """Let both duties do what there is to do: what the one leaves, the other may be able to do."""
        for _ in range(2):
            await self.expiry.run_once()
            await self.grants.run_once()

    async def lose_the_verdict(self) -> int:
        """Let `w1` live under an epoch and lapse, and the verdict on it be lost; return that epoch."""
        self.beat()
        await self.grants.run_once()
        epoch = lease_of(self.book, "w1").epoch
        assert epoch is not None
        self.ears.listen(TTL + 0.5)
        self.reclaims.loses = True
        with pytest.raises(DatabaseAwayError):
            await self.expiry.run_once()
        return epoch


@pytest.fixture
async def parts(host: HostTables, store: Store, settings: Callable[..., Settings]) -> Parts:
    """The parts in mode act; `w1` is up in the registry, and nobody else writes its beats there."""
    await host.worker("w1", silent_for=3600.0)
    return Parts(store, settings())


async def open_epochs(host: HostTables) -> list[int]:
    """Return the epochs of `w1` that are open."""
    rows = await host.connection.fetch("SELECT epoch FROM liveness.epoch WHERE worker = 'w1' AND ended_at IS NULL")
    return [row["epoch"] for row in rows]


async def test_a_worker_that_beats_before_the_lost_verdict_is_known_begins_a_new_life(
    host: HostTables, parts: Parts
) -> None:
    """It is told that its former life is over, is up again, and lives under an epoch that is open."""
    (held,) = await host.workflows("w1")
    epoch = await parts.lose_the_verdict()
    assert await host.state(held) == ("PENDING", None)
    assert await host.worker_status("w1") == ["OFFLINE"]
    assert parts.beat() is Heard.REVIVED

    await parts.rounds()

    lease = lease_of(parts.book, "w1")
    assert lease.ending is None
    assert [lease.epoch] == await open_epochs(host) != [epoch]
    assert [(told.epoch, told.new_epoch) for told in parts.told] == [(epoch, lease.epoch)]
    assert await host.worker_status("w1") == ["ONLINE"]
    assert ("worker.recovered", "w1") in await host.outbox()


async def test_what_that_new_life_holds_goes_back_when_it_ends(host: HostTables, parts: Parts) -> None:
    """After its ttl, as any other: nothing of it waits for the sweep to find orphans."""
    await parts.lose_the_verdict()
    parts.beat()
    await parts.rounds()
    (again,) = await host.workflows("w1")
    # That it was set back ONLINE counts as a beat; let it be as long ago as the ears will have listened.
    await host.connection.execute("UPDATE worker SET last_heartbeat_at = now() - interval '1 hour'")
    parts.ears.listen(TTL + 0.5)

    assert (await parts.expiry.run_once()).ended == 1
    assert await host.state(again) == ("PENDING", None)
    assert len(parts.book) == 0


async def test_a_lost_verdict_on_a_worker_that_stays_silent_is_no_second_death(host: HostTables, parts: Parts) -> None:
    """Its life ended once: the case leaves the book, and what others see is told once."""
    (held,) = await host.workflows("w1")
    await parts.lose_the_verdict()

    await parts.rounds()

    assert len(parts.book) == 0
    assert await open_epochs(host) == []
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.expiration") == 1
    assert await host.outbox() == [("worker.expired", "w1"), ("workflow.reclaimed", held)]


async def test_an_epoch_that_is_over_is_not_spared(host: HostTables, store: Store, grant: Grant) -> None:
    """Its host records a beat between the lost answer and the next offer: that is the next life's."""
    epoch = await grant("w1")
    await host.worker("w1", silent_for=3600.0)
    (first,) = await store.reclaims.settle([case("w1", epoch, spare_within=5.0)])
    await host.connection.execute("UPDATE worker SET last_heartbeat_at = now()")

    (again,) = await store.reclaims.settle([case("w1", epoch, spare_within=5.0)])

    assert (first.outcome, again.outcome, again.heard_ago) == (Outcome.ENDED, Outcome.OVER, None)
