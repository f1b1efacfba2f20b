"""When and whose last beats are written down, with a store that notes what it is asked."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from liveness.checkpoint import BATCH, Checkpoint
from liveness.errors import DatabaseAwayError
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.store import Store
from tests.unit.makers import STEP, Ears, restored

EVERY = 20.0


class Host:
    """The registry."""

    def __init__(self) -> None:
        self.away = False
        self.written: list[dict[str, float]] = []

    async def checkpoint(self, beats: Mapping[str, float]) -> None:
        """Note the beats."""
        if self.away:
            raise DatabaseAwayError("away")
        self.written.append(dict(beats))


class Clerk:
    """A checkpoint, and a book in which workers beat."""

    def __init__(self) -> None:
        self.book = LeaseTable(60.0)
        self.ears = Ears()
        self.host = Host()
        self.checkpoint = Checkpoint(
            book=self.book,
            hearing=self.ears.hearing,
            store=cast("Store", SimpleNamespace(host=self.host)),
            clock=lambda: self.ears.time,
            every=EVERY,
        )

    def beat(self, *names: str) -> None:
        """Let them beat now."""
        for name in names:
            self.book.beat(name, self.ears.now, Heartbeat())

    async def whole_pass(self) -> list[str]:
        """Write a whole pass without a pause; return whom."""
        before = len(self.host.written)
        await self.checkpoint.run_once()
        while self.checkpoint.interval < EVERY * 0.4:
            await self.checkpoint.run_once()
        return sorted(name for beats in self.host.written[before:] for name in beats)


@pytest.fixture
def clerk() -> Clerk:
    """An empty book."""
    return Clerk()


async def test_who_beat_since_the_last_pass_is_written_with_the_age_of_the_beat(clerk: Clerk) -> None:
    """Who did not, or was never heard, is not."""
    clerk.beat("a", "b")
    restored(clerk.book, "unheard")
    clerk.ears.listen(STEP)
    assert await clerk.whole_pass() == ["a", "b"]
    assert clerk.host.written == [{"a": STEP, "b": STEP}]
    clerk.ears.listen(STEP)
    clerk.beat("b")

    assert await clerk.whole_pass() == ["b"]


async def test_many_are_written_in_batches_over_half_of_the_interval(clerk: Clerk) -> None:
    """What is more urgent waits for one batch at most, and the next pass begins an interval behind this one."""
    names = [f"w{number}" for number in range(3 * BATCH + 1)]
    clerk.beat(*names)
    pauses = []
    for _ in range(4):
        await clerk.checkpoint.run_once()
        pauses.append(clerk.checkpoint.interval)
        clerk.ears.listen(STEP)

    assert [len(beats) for beats in clerk.host.written] == [BATCH, BATCH, BATCH, 1]
    assert sorted(name for beats in clerk.host.written for name in beats) == sorted(names)
    assert pauses == [EVERY / 8] * 3 + [EVERY - 3 * STEP]


async def test_who_beats_during_a_pass_is_in_the_next_one(clerk: Clerk) -> None:
    """Whether this one had come to it or not."""
    names = [f"w{number}" for number in range(BATCH + 1)]
    clerk.beat(*names)
    clerk.ears.listen(STEP)
    await clerk.checkpoint.run_once()
    clerk.ears.listen(STEP)
    clerk.beat(names[0], names[-1])
    clerk.ears.listen(STEP)
    await clerk.checkpoint.run_once()

    assert clerk.host.written[1] == {names[0]: STEP}
    assert await clerk.whole_pass() == sorted([names[0], names[-1]])


async def test_a_batch_that_postgres_did_not_take_is_the_next_one_again(clerk: Clerk) -> None:
    """Else the beats of a worker would be older there than they are, until it beats again."""
    names = [f"w{number}" for number in range(BATCH + 1)]
    clerk.beat(*names)
    clerk.host.away = True
    with pytest.raises(DatabaseAwayError):
        await clerk.checkpoint.run_once()
    clerk.host.away = False

    assert await clerk.whole_pass() == sorted(names)


async def test_who_left_the_book_during_a_pass_is_not_written(clerk: Clerk) -> None:
    """A goodbye may have been said, and the name may be another's."""
    names = [f"w{number}" for number in range(BATCH + 1)]
    clerk.beat(*names)
    await clerk.checkpoint.run_once()
    clerk.book.forget(names[0])
    await clerk.checkpoint.run_once()

    assert [len(beats) for beats in clerk.host.written] == [BATCH]


async def test_a_pass_that_takes_long_leaves_postgres_half_of_the_interval(clerk: Clerk) -> None:
    """Where there are more than can be written in time, the host's own work comes first."""
    clerk.beat(*(f"w{number}" for number in range(BATCH + 1)))
    await clerk.checkpoint.run_once()
    clerk.ears.listen(4 * EVERY)
    await clerk.checkpoint.run_once()

    assert clerk.checkpoint.interval == EVERY / 2
