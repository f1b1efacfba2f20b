"""What a sweep says when it only looks, without a database: what memory knows already, and what it has to wait for."""

from types import SimpleNamespace
from typing import Any

import pytest

from liveness.hearing import Hearing
from liveness.lease import Proof
from liveness.leases import LeaseTable
from liveness.settings import Settings
from liveness.store import Found
from liveness.storms import Storms
from liveness.sweep import Sweep
from tests.unit.makers import live


class Host:
    """Stands in for Postgres: these names are up, and were silent for long."""

    def __init__(self, *stale: Found) -> None:
        self._stale = stale

    async def ownerless(self, *_: object) -> dict[str, int]:
        """Nothing is without an owner."""
        return {}

    async def stale(self, *_: object) -> list[Found]:
        """Return them."""
        return list(self._stale)

    async def orphaned(self, *_: object) -> list[Found]:
        """Nobody else."""
        return []

    async def ambiguous(self, *_: object) -> dict[str, str]:
        """No name is like another."""
        return {}


class Leader:
    """Sees no clock."""

    async def look(self) -> None:
        """Look at it."""


class Eye:
    """A sweep that has listened for 10 s."""

    def __init__(self, *stale: Found) -> None:
        self.book = LeaseTable(60.0)
        self.hearing = Hearing(0.0, max_gap=0.5)
        self.hearing.start(0.0)
        self.hearing.now = 10.0
        self.storms = Storms(max_hold=60.0, shuffle=lambda _: None)
        store: Any = SimpleNamespace(host=Host(*stale), leader=Leader())
        self.sweep = Sweep(
            book=self.book,
            hearing=self.hearing,
            storms=self.storms,
            store=store,
            settings=Settings(),
            clock=lambda: 0.0,
        )


async def test_lives_that_are_over_are_told_of_when_it_only_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for somebody to resume, and go then; but not those whom a storm holds, who may be heard again."""
    eye = Eye()
    for worker in ("lives", "left", "held"):
        live(eye.book, worker, now=9.0)
    for worker in ("left", "held"):
        eye.book.end(worker, 10.0, Proof("released"))
    monkeypatch.setattr(eye.storms, "hold", lambda lease, _now: "a storm" if lease.worker == "held" else None)

    assert (await eye.sweep.run_once(dry_run=True)).ending == ["left"]


async def test_it_says_for_how_long_it_has_to_listen_to_those_that_it_finds() -> None:
    """Until all of them are listened for: the longest, by the ttl of the life before."""
    eye = Eye(Found("w1", ttl=None), Found("w2", ttl=90.0))

    swept = await eye.sweep.run_once(dry_run=True)

    assert (swept.too_early, swept.listen) == (["w1", "w2"], 80.0)
    eye.hearing.now = 90.0
    assert (await eye.sweep.run_once(dry_run=True)).listen == 0.0
