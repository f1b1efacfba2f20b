"""What a replica learns from Postgres, with a store that notes what it is asked."""

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from liveness.errors import DatabaseAwayError
from liveness.follow import ARRIVAL_SECONDS, TURN, Follow, Learned
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.store import Ended, Former, Life, Store
from tests.unit.makers import Ears, lease_of, live


class Epochs:
    """What Postgres would say, and what it was asked."""

    def __init__(self) -> None:
        self.open: list[Life] = []
        self.host_has: set[str] = set()
        # By name, how long ago.
        self.ended: dict[str, float] = {}
        self.last = 1
        # Whose restart it was, if it was one.
        self.restarted: str | None = None
        self.former: list[Former] = []
        self.fails: list[Exception] = []
        self.asked: list[tuple[str, list[str] | None]] = []

    async def open_lives(self, names: list[str] | None) -> list[Life]:
        """Which of these live."""
        self.asked.append(("open", names))
        if self.fails:
            raise self.fails.pop()
        return [life for life in self.open if names is None or life.worker in names]

    async def ended_ago(self, names: Sequence[str]) -> Mapping[str, Ended]:
        """How long ago these ended."""
        self.asked.append(("ended", list(names)))
        return {
            name: Ended(self.last, ago, self.restarted is not None, self.restarted)
            for name, ago in self.ended.items()
            if name in names
        }

    async def known(self, names: list[str]) -> set[str]:
        """Whom of these the host knows."""
        self.asked.append(("known", names))
        return self.host_has & set(names)

    async def formers(self, names: list[str] | None) -> list[Former]:
        """Which incarnations were replaced."""
        self.asked.append(("formers", names))
        return self.former


class Follower:
    """A book that follows, and ears that hear."""

    def __init__(self) -> None:
        self.book = LeaseTable(60.0)
        self.ears = Ears()
        self.epochs = Epochs()
        self.follow = Follow(
            book=self.book,
            hearing=self.ears.hearing,
            store=cast("Store", SimpleNamespace(epochs=self.epochs)),
            default_ttl=60.0,
            clock=lambda: self.ears.time,
        )

    def beat(self, incarnation: str | None = None) -> None:
        """`w` beats, with a ttl of 10 s."""
        self.book.beat("w", self.ears.stamp(), Heartbeat(incarnation=incarnation, ttl=10.0), self.ears.time)


@pytest.fixture
def follower() -> Follower:
    """An empty book."""
    return Follower()


async def test_those_who_are_well_take_turns(follower: Follower) -> None:
    """Postgres is asked after so many of them in one look, and nobody has a second turn before all have had one."""
    names = [f"w{number}" for number in range(2 * TURN + 1)]
    for epoch, name in enumerate(names):
        live(follower.book, name, epoch=epoch)
    for _ in range(3):
        await follower.follow.run_once()
    asked = [question_names or [] for _, question_names in follower.epochs.asked]

    assert [question for question, _ in follower.epochs.asked] == ["open"] * 3
    assert [len(some) for some in asked] == [TURN, TURN, 1]
    assert sorted(name for some in asked for name in some) == sorted(names)
    assert len(follower.book) == len(names)


async def test_who_leads_keeps_nobody_whom_the_book_has_forgotten(follower: Follower) -> None:
    """Those who have not had their turn yet are of no more use to it."""
    for epoch in range(TURN + 1):
        live(follower.book, f"w{epoch}", epoch=epoch)
    await follower.follow.run_once()
    assert len(follower.follow._left) == 1
    await follower.follow.catch_up()

    assert not follower.follow._left


async def test_nothing_is_asked_of_nobody(follower: Follower) -> None:
    """An empty book costs Postgres nothing."""
    assert await follower.follow.run_once() == Learned()
    assert follower.epochs.asked == []


async def test_an_epoch_that_ended_between_two_looks_is_not_kept(follower: Follower) -> None:
    """The leader has ended it and granted the next one, and its worker beats all the time."""
    live(follower.book, epoch=4, incarnation="a")
    follower.ears.listen(1.0)
    follower.epochs.open = [Life("w", 5, "a", 10.0)]
    await follower.follow.run_once()

    lease = lease_of(follower.book)
    assert (lease.epoch, lease.after, lease.ending) == (5, 4, None)
    assert not follower.book.wanting
    assert follower.book.lines.deadline(lease) == 10.0


async def test_a_restart_ends_no_epoch_that_was_granted_to_the_new_process(follower: Follower) -> None:
    """The former one had lapsed for the leader, and this replica learned of the next epoch before it heard whose it is.

    It is not named there before what the former process left was looked for.
    """
    live(follower.book, epoch=4, incarnation="a")
    follower.epochs.open = [Life("w", 5, None, 10.0)]
    await follower.follow.run_once()
    for uptime in (1.0, 6.0):
        follower.ears.listen(uptime)
        beat = Heartbeat(incarnation="b", ttl=10.0, uptime=uptime)
        follower.book.beat("w", follower.ears.stamp(), beat, follower.ears.time)
    lease = lease_of(follower.book)
    assert lease.ending is not None
    assert (lease.epoch, lease.ending.reason, lease.ending.incarnation) == (5, "restarted", "a")
    follower.epochs.open = [Life("w", 5, "b", 10.0)]
    await follower.follow.run_once()

    assert (lease.epoch, lease.incarnation) == (5, "b")
    assert not follower.book.endings
    assert not follower.book.arrivals


@pytest.mark.parametrize("said", ["hello", "goodbye", "beat"])
async def test_what_is_heard_while_postgres_is_asked_is_newer_than_its_answer(follower: Follower, said: str) -> None:
    """The answer of an earlier moment undoes no restart and no goodbye; a beat changes nothing of it."""
    live(follower.book, epoch=4, incarnation="a")
    follower.epochs.open = [Life("w", 5, "a", 10.0)]
    open_lives = follower.epochs.open_lives

    async def read(names: list[str] | None) -> list[Life]:
        beat = Heartbeat(incarnation="b" if said == "hello" else "a", ttl=10.0, uptime=0.0)
        if said == "hello":
            follower.book.hello("w", follower.ears.stamp(), beat, follower.ears.time)
        elif said == "goodbye":
            follower.book.release("w", "a", follower.ears.now)
        else:
            follower.book.beat("w", follower.ears.stamp(), beat, follower.ears.time)
        return await open_lives(names)

    follower.epochs.open_lives = read  # type: ignore[method-assign]
    follower.ears.listen(1.0)
    await follower.follow.run_once()

    lease = lease_of(follower.book)
    assert (lease.epoch, lease.incarnation, lease.ending is not None) == {
        "hello": (4, "b", True), "goodbye": (4, "a", True), "beat": (5, "a", False),
    }[said]  # fmt: skip


async def test_who_is_well_and_has_no_open_epoch_stays(follower: Follower) -> None:
    """The next one is not granted yet; who is dead is found when it is overdue."""
    live(follower.book)
    follower.ears.listen(1.0)
    follower.epochs.ended = {"w": 0.5}

    assert await follower.follow.run_once() == Learned()
    assert lease_of(follower.book).epoch is not None


async def test_an_epoch_that_the_leader_granted_is_learned(follower: Follower) -> None:
    """Its lease goes on as it was heard."""
    follower.beat("a")
    follower.epochs.open = [Life("w", 5, "a", 30.0, 8.0)]

    assert await follower.follow.run_once() == Learned(open=1)
    assert follower.epochs.asked == [("open", ["w"])]
    lease = lease_of(follower.book)
    assert (lease.epoch, lease.ttl, lease.hello_uptime) == (5, 10.0, 8.0)


async def test_a_stranger_that_the_leader_never_granted_leaves_the_book_when_it_is_overdue(follower: Follower) -> None:
    """It may have been turned away there. One that the host knows stays, for whoever leads next."""
    for worker in ("stranger", "known"):
        follower.book.beat(worker, follower.ears.now, Heartbeat(ttl=10.0))
    follower.epochs.host_has = {"known"}
    follower.ears.listen(9.75)
    await follower.follow.run_once()
    assert len(follower.book) == 2
    follower.ears.listen(0.25)
    await follower.follow.run_once()

    assert [lease.worker for lease in follower.book] == ["known"]
    assert [names for question, names in follower.epochs.asked if question == "known"] == [["stranger", "known"]]


async def test_a_goodbye_is_looked_up_though_its_epoch_is_known(follower: Follower) -> None:
    """The leader heard it as well, and ends that life."""
    live(follower.book)
    follower.book.release("w", None, 0.0)

    assert await follower.follow.run_once() == Learned(over=1)
    assert follower.book.get("w") is None


async def test_the_dead_leave_the_book(follower: Follower) -> None:
    """Overdue here, and ended by the leader; who is overdue and not ended stays for whoever leads next."""
    live(follower.book, "ended", epoch=1)
    live(follower.book, "open", epoch=2)
    live(follower.book, "well", epoch=3, ttl=60.0)
    follower.epochs.open = [Life("open", 2, None, 10.0)]
    follower.ears.listen(20.0)
    for _ in range(3):
        await follower.follow.run_once()

    # The first look says that its epoch is over, the second that nothing has begun since.
    assert follower.epochs.asked[0] == ("open", ["ended", "open", "well"])
    assert follower.book.get("ended") is None or lease_of(follower.book, "ended").epoch is None
    assert {"open", "well"} <= {lease.worker for lease in follower.book}


async def test_who_was_ended_after_it_was_last_heard_leaves_the_book(follower: Follower) -> None:
    """It was granted and ended while this replica did not look."""
    follower.beat()
    follower.ears.listen(20.0)
    follower.epochs.ended = {"w": 9.5}

    await follower.follow.run_once()
    assert follower.book.get("w") is None


@pytest.mark.parametrize(("ago", "seconds"), [(None, 20.0), (20.0, 20.0), (25.0, 20.0)])
async def test_who_may_live_stays(follower: Follower, ago: float | None, seconds: float) -> None:
    """Never granted, or ended before it was last heard: its next life wants an epoch."""
    follower.epochs.host_has = {"w"}
    follower.beat()
    follower.ears.listen(seconds)
    if ago is not None:
        follower.epochs.ended = {"w": ago}

    await follower.follow.run_once()
    assert list(follower.book.wanting) == ["w"]


async def test_a_life_that_was_ended_elsewhere_is_not_granted_another_epoch(follower: Follower) -> None:
    """It was ended after we heard it last, though by our book it has a moment left: there is nothing more to end."""
    follower.beat()
    follower.ears.listen(9.75)
    follower.epochs.ended = {"w": 5.0}

    await follower.follow.catch_up()
    assert follower.book.get("w") is None
    assert not follower.book.wanting


async def test_silence_is_measured_in_real_time(follower: Follower) -> None:
    """The database's clock went on while this replica was deaf."""
    follower.beat()
    follower.ears.listen(1.0)
    follower.ears.stall(100.0)
    follower.ears.listen(11.0)
    follower.epochs.ended = {"w": 60.0}

    await follower.follow.run_once()
    assert follower.book.get("w") is None


@pytest.mark.parametrize("ago", [0.5, 1.5])
async def test_a_life_that_ended_there_goes_on_here_as_the_next(follower: Follower, ago: float) -> None:
    """The worker said goodbye 2 s ago and was started again 1 s ago; the leader has ended the former life already."""
    follower.beat("a")
    follower.book.release("w", "a", follower.ears.now)
    follower.ears.listen(1.0)
    follower.beat("b")
    follower.ears.listen(1.0)
    follower.epochs.ended = {"w": ago}
    await follower.follow.run_once()

    assert not follower.book.endings
    assert (lease_of(follower.book).incarnation, list(follower.book.wanting)) == ("b", ["w"])


async def test_a_life_that_ends_and_was_not_ended_there_yet_waits(follower: Follower) -> None:
    """What ended there is the one before it."""
    follower.ears.listen(3.0)
    follower.beat("a")
    follower.ears.listen(1.0)
    follower.book.release("w", "a", follower.ears.now)
    follower.epochs.ended = {"w": 2.0}
    await follower.follow.run_once()

    assert list(follower.book.endings) == ["w"]


async def test_catching_up_learns_everything_once(follower: Follower) -> None:
    """Lives that were not heard are owed a ttl, those that were are extended by nothing; the ended leave."""
    live(follower.book, "heard", epoch=1)
    live(follower.book, "ended", epoch=2)
    follower.epochs.open = [
        Life("heard", 1, None, 10.0),
        Life("unknown", 7, "a", 20.0),
        Life("no ttl", 8, None, None),
        Life("no epoch", None, None, None),
    ]
    follower.epochs.former = [Former("heard", "old", 0)]
    follower.ears.listen(4.0)

    assert await follower.follow.catch_up() == Learned(open=4, over=1)
    assert follower.epochs.asked == [("open", None), ("ended", ["ended"]), ("formers", None)]
    deadlines = {lease.worker: follower.book.lines.deadline(lease) for lease in follower.book}
    assert deadlines == {"heard": 10.0, "ended": 10.0, "unknown": 24.0, "no ttl": 64.0}
    assert list(follower.book.wanting) == ["ended"]
    assert lease_of(follower.book, "unknown").incarnation == "a"
    assert follower.book.incarnations.epoch_of("heard", "old") == 0


async def test_an_arrival_is_kept_for_the_day_when_this_replica_leads(follower: Follower) -> None:
    """The leader may hear nothing, and for minutes; later the beginning is worth less than what clocks drift."""
    follower.book.hello("w", 0.0, Heartbeat(incarnation="a", uptime=1.0), 0.0)
    await follower.follow.run_once()
    follower.ears.time += ARRIVAL_SECONDS
    await follower.follow.run_once()
    assert list(follower.book.arrivals) == ["w"]

    follower.ears.time += 1.0
    await follower.follow.run_once()
    assert not follower.book.arrivals


async def test_a_life_whose_epoch_is_over_and_who_was_not_heard_since_leaves_the_book(follower: Follower) -> None:
    """The next process of its name would be taken for a restart of it, under an epoch that is already its own."""
    live(follower.book, incarnation="a")
    follower.ears.listen(12.0)
    follower.epochs.ended = {"w": 1.0}

    assert await follower.follow.run_once() == Learned(over=1)
    assert len(follower.book) == 0


async def test_a_look_that_was_begun_while_we_caught_up_is_not_believed(follower: Follower) -> None:
    """It may be answered when we have ended lives ourselves, whose names live on."""
    live(follower.book)
    follower.book.release("w", None, 0.0)
    looks: list[asyncio.Task[Learned]] = []
    caught_up = asyncio.Event()
    formers, open_lives = follower.epochs.formers, follower.epochs.open_lives

    async def read(names: list[str] | None) -> list[Life]:
        if names is None:
            looks.append(asyncio.create_task(follower.follow.run_once()))
            await asyncio.sleep(0)
        else:
            await caught_up.wait()
        return await open_lives(names)

    async def in_the_end(names: list[str] | None) -> list[Former]:
        live(follower.book, epoch=2)
        return await formers(names)

    follower.epochs.open_lives = read  # type: ignore[method-assign]
    follower.epochs.formers = in_the_end  # type: ignore[method-assign]
    await follower.follow.catch_up()
    caught_up.set()

    assert await looks[0] == Learned()
    assert lease_of(follower.book).epoch == 2


@pytest.mark.parametrize(("last", "left"), [(1, ["w"]), (2, [])])
async def test_the_end_of_a_former_life_is_not_the_end_of_the_next(
    follower: Follower, last: int, left: list[str]
) -> None:
    """That was heard last before it, in a rarely beating worker, and waits for its epoch; a later end would be news."""
    live(follower.book, incarnation="a")
    follower.book.hello("w", follower.ears.stamp(), Heartbeat(incarnation="b"), follower.ears.time)
    follower.ears.listen(2.0)
    follower.book.ended("w", 1, follower.ears.now)
    follower.ears.listen(6.0)
    follower.epochs.ended, follower.epochs.last = {"w": 6.0}, last
    await follower.follow.run_once()

    assert [lease.worker for lease in follower.book] == left


@pytest.mark.parametrize(("restarted", "left"), [(None, []), ("a", ["w"]), ("b", [])])
async def test_a_restart_that_others_settled_is_not_the_end_of_the_new_process(
    follower: Follower, restarted: str | None, left: list[str]
) -> None:
    """It beats rarely, and was heard last before the former one's epoch ended, in which it is here, too."""
    live(follower.book, incarnation="b")
    follower.ears.listen(6.0)
    follower.epochs.ended, follower.epochs.restarted = {"w": 1.0}, restarted
    await follower.follow.run_once()
    live(follower.book, "other", follower.ears.now, epoch=9)
    await follower.follow.catch_up()

    assert [lease.worker for lease in follower.book if lease.worker == "w"] == left


async def test_who_was_heard_beside_a_life_that_a_restart_has_ended_is_the_next(follower: Follower) -> None:
    """The leader believed it before we did."""
    live(follower.book, "v", incarnation="a")
    follower.ears.listen(6.0)
    follower.book.beat("v", follower.ears.stamp(), Heartbeat(incarnation="b", uptime=1.0), follower.ears.time)
    follower.ears.listen(6.0)
    follower.epochs.ended, follower.epochs.restarted = {"v": 1.0}, "a"
    await follower.follow.catch_up()

    lease = lease_of(follower.book, "v")
    assert (lease.incarnation, lease.epoch, lease.ending) == ("b", None, None)
    assert "v" in follower.book.wanting


async def test_a_turn_that_is_under_way_does_not_say_that_postgres_is_away(follower: Follower) -> None:
    """One is taken all the time, and nothing waits for it; that it fails says so."""
    live(follower.book)
    seen = []
    open_lives = follower.epochs.open_lives

    async def read(names: list[str] | None) -> list[Life]:
        seen.append(follower.follow.away)
        return await open_lives(names)

    follower.epochs.open_lives = read  # type: ignore[method-assign]
    await follower.follow.run_once()
    follower.epochs.fails = [DatabaseAwayError("away")]
    with pytest.raises(DatabaseAwayError):
        await follower.follow.run_once()
    assert follower.follow.away
    await follower.follow.run_once()

    assert seen == [False, False, True]
    assert not follower.follow.away


async def test_that_postgres_is_away_is_known_until_it_answers_again(follower: Follower) -> None:
    """Who is overdue here may wait for it there; a look that asks nothing says nothing of that."""
    follower.beat()
    follower.ears.listen(10.0)
    follower.epochs.fails = [DatabaseAwayError("away")]
    with pytest.raises(DatabaseAwayError):
        await follower.follow.run_once()
    assert follower.follow.away
    await follower.follow.run_once()

    assert not follower.follow.away
