"""Who gets an epoch, with a store that notes what it is asked."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import cast

import pytest

from liveness.errors import DatabaseAwayError
from liveness.grants import BATCH, RANKED_AT_ONCE, SLOW_SECONDS, Grants
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.settings import Settings
from liveness.store import Granted, Life, Store
from liveness.verdicts import Recovery
from tests.unit.makers import Ears, lease_of


class Epochs:
    """Postgres, which grants whatever is wanted."""

    def __init__(self) -> None:
        self.granted: list[Life] = []
        self.updated: list[Life] = []
        # Of the host: asked for one after another.
        self.host_has: set[str] = set()
        self.asked: list[int] = []
        # About how many names Postgres can say that in time.
        self.answers_up_to = RANKED_AT_ONCE
        self.on_late: Callable[[], None] = lambda: None
        self.on_grant: Callable[[], None] = lambda: None

    async def known(self, names: list[str]) -> set[str]:
        """Say whom the host knows."""
        self.asked.append(len(names))
        if len(names) > self.answers_up_to:
            self.on_late()
            raise DatabaseAwayError("no answer in time")
        return self.host_has & set(names)

    async def grant(self, lives: Iterable[Life]) -> Granted:
        """Issue epochs."""
        epochs = {}
        for life in lives:
            self.granted.append(life)
            epochs[life.worker] = len(self.granted)
        self.on_grant()
        return Granted(epochs, [])

    async def update(self, lives: Iterable[Life]) -> None:
        """Note what changed."""
        self.updated += lives

    async def recover(self, _: Mapping[str, int]) -> list[Recovery]:
        """Nobody had been given up."""
        return []

    async def set_back(self) -> None:
        """Nobody was set OFFLINE."""


class Office:
    """Grants, and a book in which leases want them."""

    def __init__(self) -> None:
        self.book = LeaseTable(60.0)
        self.ears = Ears()
        self.epochs = Epochs()
        self.grants = Grants(
            book=self.book,
            hearing=self.ears.hearing,
            store=cast("Store", SimpleNamespace(epochs=self.epochs)),
            settings=Settings(),
            publish=self.publish,
            clock=lambda: self.ears.time,
        )

    async def publish(self, _subject: str, _payload: bytes) -> bool:
        """Send a message."""
        return True

    def beat(self, incarnation: str, now: float) -> None:
        """`w` beats."""
        self.book.beat("w", now, Heartbeat(incarnation=incarnation), now)

    def hello(self, incarnation: str, now: float) -> None:
        """`w` says hello."""
        self.book.hello("w", now, Heartbeat(incarnation=incarnation), now)


@pytest.fixture
def office() -> Office:
    """An empty book."""
    return Office()


async def test_a_life_that_was_heard_is_granted_and_written(office: Office) -> None:
    """Once."""
    office.beat("a", 0.0)
    done = await office.grants.run_once()
    await office.grants.run_once()

    assert (done.granted, done.updated) == (1, 1)
    assert office.epochs.granted == [Life("w", None, "a", 60.0)]
    assert lease_of(office.book).epoch == 1


async def test_who_said_hello_is_granted_when_nothing_is_left_of_a_former_life(office: Office) -> None:
    """It is told its epoch, so that is not issued before that is known."""
    office.hello("a", 0.0)
    await office.grants.run_once()
    assert office.epochs.granted == []
    office.book.arrived("w", "a")
    await office.grants.run_once()

    assert office.epochs.granted == [Life("w", None, "a", 60.0)]


async def test_a_life_that_ends_without_an_epoch_gets_one_to_end_under(office: Office) -> None:
    """Its own incarnation's."""
    office.beat("a", 0.0)
    office.hello("b", 1.0)
    await office.grants.run_once()

    assert office.epochs.granted == [Life("w", None, "a", 60.0)]


async def test_a_hello_that_waits_for_a_life_without_an_epoch_does_not_wait_for_ever(office: Office) -> None:
    """The life that ends has to have its epoch first: else the verdict on it, and then the hello, would never come."""
    office.beat("a", 0.0)
    office.hello("b", 1.0)
    office.hello("c", 2.0)
    await office.grants.run_once()

    assert office.epochs.granted == [Life("w", None, "a", 60.0)]
    office.book.ended("w", 1, 3.0)
    await office.grants.run_once()
    assert len(office.epochs.granted) == 1
    office.book.arrived("w", "c")
    await office.grants.run_once()
    assert office.epochs.granted[1:] == [Life("w", None, "c", 60.0)]


async def test_a_goodbye_before_the_grant_and_a_hello_after_it_do_not_wait_for_each_other(office: Office) -> None:
    """A process that lived for a moment, and its successor that beats before it says hello."""
    office.beat("a", 0.0)
    office.book.release("w", "a", 1.0)
    office.beat("b", 2.0)
    office.hello("b", 3.0)
    await office.grants.run_once()

    assert office.epochs.granted == [Life("w", None, "a", 60.0)]


async def test_the_newest_hello_is_granted_with_a_life_and_kept(office: Office) -> None:
    """By it a service that starts, or takes over, tells a goodbye that comes late."""
    for uptime in (3.0, 5.0):
        office.book.hello("w", 9.0, Heartbeat(incarnation="a", uptime=uptime), 9.0)
    office.book.arrived("w", "a")

    def meanwhile() -> None:
        office.book.hello("w", 9.0, Heartbeat(incarnation="a", uptime=6.0), 9.0)

    office.epochs.on_grant = meanwhile
    await office.grants.run_once()

    assert office.epochs.granted == [Life("w", None, "a", 60.0, 5.0)]
    assert office.epochs.updated == [Life("w", 1, "a", 60.0, 6.0)]
    office.book.hello("w", 9.0, Heartbeat(incarnation="a", uptime=7.0), 9.0)
    await office.grants.run_once()
    assert office.epochs.updated[1:] == [Life("w", 1, "a", 60.0, 7.0)]
    await office.grants.run_once()
    assert len(office.epochs.updated) == 2


async def test_a_life_that_is_not_named_yet_has_no_hello(office: Office) -> None:
    """Whose it is would be the next thing to be read from that."""
    office.beat("a", 0.0)
    office.book.hello("w", 1.0, Heartbeat(incarnation="b", uptime=0.5), 1.0)
    await office.grants.run_once()

    assert office.epochs.granted == [Life("w", None, "a", 60.0)]


def crowd(office: Office, workers: int) -> list[str]:
    """Let so many workers beat, of whom the host knows all but the first half of a batch."""
    names = [f"w{number}" for number in range(workers)]
    for name in names:
        office.book.beat(name, 0.0, Heartbeat())
    office.epochs.host_has = set(names[BATCH // 2 :])
    return names


async def test_those_whom_the_host_knows_are_all_granted_first_by_one_question(office: Office) -> None:
    """To ask for a batch at a time would ask for the last of many names as often as there are batches."""
    names = crowd(office, 3 * BATCH)
    await office.grants.run_once()

    assert [life.worker for life in office.epochs.granted] == names[BATCH // 2 :] + names[: BATCH // 2]
    assert office.epochs.asked == [3 * BATCH]


async def test_strangers_of_a_crowd_that_lapse_before_they_are_granted_leave_the_book(office: Office) -> None:
    """There is nothing to be ended. Whoever the host knows gets an epoch to end under, and so does proof."""
    names = crowd(office, 3 * BATCH)
    strangers = names[: BATCH // 2]
    office.book.release(strangers[0], None, 1.0)
    office.book.restore("restored", 0.0, 60.0)
    office.book.lapse(60.0)
    await office.grants.run_once()

    left = {life.worker for life in office.epochs.granted}
    assert left == {*names[BATCH // 2 :], strangers[0], "restored"}
    assert not office.book.wanting
    assert all(office.book.get(name) is None for name in strangers[1:])


async def test_a_crowd_is_granted_though_postgres_cannot_say_in_time_who_of_it_is_known(office: Office) -> None:
    """Fewer are asked about each time, in the end none; the next crowd is asked about as ever."""
    names = crowd(office, 4 * BATCH)
    office.epochs.answers_up_to = BATCH
    office.epochs.on_late = lambda: office.ears.wait(SLOW_SECONDS)
    for _ in range(RANKED_AT_ONCE // BATCH):
        with contextlib.suppress(DatabaseAwayError):
            await office.grants.run_once()

    assert {life.worker for life in office.epochs.granted} == set(names)
    assert office.epochs.asked == [4 * BATCH, 4 * BATCH, 4 * BATCH, 2_500, 1_250]
    office.epochs.asked.clear()
    for number in range(2 * BATCH):
        office.book.beat(f"v{number}", 1.0, Heartbeat())
    with pytest.raises(DatabaseAwayError):
        await office.grants.run_once()
    assert office.epochs.asked == [2 * BATCH]


async def test_a_postgres_that_is_away_is_asked_about_as_many_when_it_is_back(office: Office) -> None:
    """It said so at once, so it was not too much."""
    crowd(office, 4 * BATCH)
    office.epochs.answers_up_to = BATCH
    for _ in range(6):
        with pytest.raises(DatabaseAwayError):
            await office.grants.run_once()

    assert office.epochs.asked == [4 * BATCH] * 6


async def test_of_those_whom_the_host_does_not_know_only_a_batch_is_granted_before_it_is_asked_again(
    office: Office,
) -> None:
    """A flood of invented names keeps a real one waiting no longer than that takes."""
    crowd(office, 3 * BATCH)
    office.epochs.host_has = {"real"}

    def appear() -> None:
        office.book.beat("real", 1.0, Heartbeat())

    office.epochs.on_grant = appear
    await office.grants.run_once()

    assert office.epochs.granted[BATCH].worker == "real"


async def test_who_has_left_while_others_were_granted_is_not(office: Office) -> None:
    """Nor is a new process that says hello meanwhile: it has to be answered first."""
    names = crowd(office, 3 * BATCH)

    def leave() -> None:
        office.book.forget(names[-1])
        office.book.forget(names[-2])
        office.book.hello(names[-2], 1.0, Heartbeat(incarnation="b"), 1.0)

    office.epochs.on_grant = leave
    await office.grants.run_once()

    granted = {life.worker for life in office.epochs.granted}
    assert set(names) - granted == set(names[-2:])
