"""What is told of bounds, and when Postgres is asked about strangers."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from liveness.admission import CROWD_LEAST, INVITED_SECONDS, Admission
from liveness.bounds import INVITE_SECONDS, TELL_SECONDS, Bounds, Looked
from liveness.errors import DatabaseRefusedError
from liveness.measures import BOUNDS
from liveness.reports import Reports
from liveness.settings import Settings
from liveness.store import Store
from tests.unit.test_intake import Way


class Epochs:
    """What Postgres knows, and what it was asked."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.expects = 0
        self.asked: list[Sequence[str]] = []
        self.refuses = False

    async def expected(self) -> list[str]:
        """Return who may live."""
        self.expects += 1
        return self.names

    async def known(self, names: list[str]) -> set[str]:
        """Return whom of these it knows."""
        self.asked.append(names)
        if self.refuses:
            raise DatabaseRefusedError("no such text")
        return set(names) & set(self.names)


class Gate(Way):
    """A way in with bounds, and the duty that looks after them."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        given = Settings(**settings)
        self.admission = self.intake.admission = Admission(max_workers=given.max_workers, max_grants=given.max_grants)
        self.epochs = Epochs()
        self.reports = Reports(leak_grace=60.0, wedge_after=0.0)
        self.bounds = Bounds(
            admission=self.admission,
            book=self.book,
            hearing=self.ears.hearing,
            counts=self.intake.counts,
            reports=self.reports,
            store=cast("Store", SimpleNamespace(epochs=self.epochs)),
            settings=given,
            clock=lambda: self.ears.time,
        )

    async def lines(self) -> list[tuple[str, int]]:
        """Let the duty look, and return which bounds it tells of, and how often they were hit."""
        with capture_logs() as logs:
            await self.bounds.run_once()
        return [(line["bound"], line["times"]) for line in logs if line["event"] == "bound_hit"]


async def test_postgres_is_asked_nothing_while_nobody_is_turned_away() -> None:
    """Strangers among many that are known are nothing to ask about."""
    gate = Gate()
    for number in range(CROWD_LEAST):
        gate.beat(f"w{number}")

    assert await gate.bounds.run_once() == Looked()
    assert (gate.epochs.expects, gate.epochs.asked) == (0, [])


async def test_who_postgres_knows_comes_in_however_full_the_book_is() -> None:
    """With its next beat; it is asked again every few seconds, and no more when the flood is over."""
    gate = Gate(max_workers=1)
    for worker in ("w", "known", "stranger"):
        gate.beat(worker)
    gate.epochs.names = ["w", "known"]
    assert (await gate.bounds.run_once()).invited == 1
    await gate.bounds.run_once()
    assert gate.epochs.expects == 1
    for worker in ("known", "stranger"):
        gate.beat(worker)

    assert (gate.book.get("known") is not None, gate.book.get("stranger")) == (True, None)
    gate.ears.listen(INVITE_SECONDS)
    assert (await gate.bounds.run_once()).invited == 0
    assert gate.epochs.expects == 2
    gate.epochs.names = ["later"]
    gate.ears.listen(INVITE_SECONDS)
    assert (await gate.bounds.run_once()).invited == 1
    gate.ears.listen(INVITED_SECONDS)
    assert (await gate.bounds.run_once()).invited == 0
    assert gate.epochs.expects == 3


async def test_postgres_is_asked_which_strangers_of_a_crowd_it_knows() -> None:
    """Each that is in the book, again and again, until it does."""
    gate = Gate()
    for number in range(CROWD_LEAST + 3):
        gate.beat(f"w{number}")
    gate.book.forget("w50")
    gate.epochs.names = ["w51"]

    assert (await gate.bounds.run_once()).acquainted == 1
    assert list(gate.admission.strangers) == ["w52"]
    gate.epochs.refuses = True
    assert (await gate.bounds.run_once()).acquainted == 0
    assert gate.epochs.asked == [["w51", "w52"], ["w52"]]


async def test_a_bound_is_told_of_once_a_minute_however_often_it_is_hit() -> None:
    """And what was beyond it meanwhile is told then; in the status it is for as long as it is hit."""
    gate = Gate(max_workers=1)
    gate.beat("w")
    assert await gate.lines() == []
    for number in range(1_000):
        gate.beat(f"v{number}")
    assert await gate.lines() == [("workers", 1_000)]
    gate.beat("x", b'{"ttl": 0.5}')
    gate.reports.refused = 2
    gate.ears.wait(TELL_SECONDS / 2)
    assert await gate.lines() == [("running", 2)]
    assert [line.partition(":")[0] for line in gate.bounds.hit()] == ["workers", "running"]
    assert "1001 since the start" in gate.bounds.hit()[0]
    gate.ears.wait(TELL_SECONDS / 2)
    assert await gate.lines() == [("workers", 1)]
    gate.ears.wait(TELL_SECONDS / 2)
    assert await gate.lines() == []
    assert gate.bounds.hit() == []


@pytest.mark.parametrize("bound", BOUNDS)
async def test_every_bound_has_words(bound: str) -> None:
    """That say what becomes of what is beyond it."""
    gate = Gate()
    gate.intake.counts[f"beyond_{bound}"] = gate.reports.refused = 1
    await gate.bounds.run_once()

    assert any(line.startswith(f"{bound}: ") for line in gate.bounds.hit())
