"""Hellos and their answers, with a store that notes what it is asked and a bus that notes what is answered."""

import json
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from liveness import greetings
from liveness.admission import Admission
from liveness.apart import PAUSE_LEAST
from liveness.beginnings import Arrival
from liveness.errors import DatabaseAwayError, DatabaseRefusedError
from liveness.greetings import BATCH, FORGET_SECONDS, Greetings
from liveness.intake import Intake
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat, HelloAnswer
from liveness.settings import Settings
from liveness.store import Store
from liveness.storms import Storms
from liveness.wakes import Wakes
from tests.unit.makers import Ears, ending_of, lease_of


class Postgres:
    """Knows who holds work of a former life, and what has still to go back."""

    def __init__(self) -> None:
        self.former: set[str] = set()
        self.unreturned: set[str] = set()
        self.refused: set[str] = set()
        self.away = False
        self.looked: list[Mapping[str, tuple[str, float]]] = []
        # For how much longer an incarnation is there than was heard.
        self.older = 0.0
        self.asked: list[list[str]] = []
        # What happens while we wait for the answer.
        self.meanwhile: Callable[[], object] = lambda: None

    async def holding(self, ages: Mapping[str, tuple[str, float]]) -> Mapping[str, float]:
        """Return who holds work that is older than so many seconds each, or more."""
        self.looked.append(dict(ages))
        if self.away:
            raise DatabaseAwayError("away")
        if self.refused & ages.keys():
            raise DatabaseRefusedError("not a name")
        self.meanwhile()
        return {name: age + self.older for name, (_, age) in ages.items() if name in self.former}

    async def owing(self, names: Sequence[str]) -> set[str]:
        """Return whose work has still to go back."""
        self.asked.append(list(names))
        self.meanwhile()
        return self.unreturned & set(names)


class Door:
    """Greetings of a replica that leads, over an empty book."""

    def __init__(self) -> None:
        self.book = LeaseTable(60.0)
        self.ears = Ears(100.0)
        self.leads = True
        self.answers: list[tuple[str, HelloAnswer]] = []
        self.wakes = Wakes()
        self.postgres = Postgres()
        self.intake = intake = Intake(
            book=self.book,
            hearing=self.ears.hearing,
            storms=Storms(max_hold=600.0, shuffle=lambda _: None),
            settings=Settings(),
            clock=lambda: self.ears.time,
            wakes=self.wakes,
        )
        self.greetings = Greetings(
            book=self.book,
            hearing=self.ears.hearing,
            intake=intake,
            store=cast("Store", SimpleNamespace(reclaims=self.postgres, host=self.postgres)),
            answer=self.answer,
            clock=lambda: self.ears.time,
            leading=lambda: self.leads,
            wakes=self.wakes,
        )

    def answer(self, reply: str, payload: bytes) -> None:
        """Note an answer."""
        self.answers.append((reply, msgspec.json.decode(payload, type=HelloAnswer)))

    def hello(self, worker: str = "w", *, reply: str = "inbox", **fields: Any) -> None:
        """A hello comes from the bus."""
        self.greetings.hello(f"liveness.hello.{worker}", json.dumps(fields).encode(), reply)

    def answered(self) -> list[tuple[str, int | None]]:
        """Take the answers: to which inbox, and the epoch."""
        answers = [(reply, answer.epoch) for reply, answer in self.answers]
        self.answers.clear()
        return answers

    def complaints(self) -> list[tuple[str, str | None]]:
        """Take the answers: to which inbox, and the error."""
        answers = [(reply, answer.error) for reply, answer in self.answers]
        self.answers.clear()
        return answers


@pytest.fixture
def door() -> Door:
    """Nobody has come yet."""
    return Door()


async def test_a_hello_of_a_new_name_is_answered_once_it_has_an_epoch(door: Door) -> None:
    """Once, and not before it was looked whether a former life has left anything."""
    door.hello(incarnation="a", uptime=2.0)
    assert door.wakes.arrivals.is_set()
    door.wakes.lives.clear()
    door.ears.wait(1.0)
    assert await door.greetings.run_once() == 0
    assert door.postgres.looked == [{"w": ("a", 3.0)}]
    # It is allowed an epoch from now on.
    assert not door.book.arrivals
    assert door.wakes.lives.is_set()
    door.book.granted("w", 7)

    assert await door.greetings.run_once() == 1
    assert door.answers == [("inbox", HelloAnswer(worker="w", incarnation="a", epoch=7, ttl=60.0))]
    assert await door.greetings.run_once() == 0
    assert (len(door.answers), len(door.postgres.looked)) == (1, 1)


@pytest.mark.parametrize(
    ("stated", "granted"), [([None], 60.0), ([7200.0], 3600.0), ([0.1], 1.0), ([600.0, 10.0], 10.0)]
)
async def test_the_answer_says_how_long_a_beat_is_good_for(
    door: Door, stated: list[float | None], granted: float
) -> None:
    """By the service's bounds, and not by a longer promise of an earlier beat: the worker stops by it."""
    for ttl in stated:
        door.hello(incarnation="a", ttl=ttl)
    await door.greetings.run_once()
    door.book.granted("w", 7)
    await door.greetings.run_once()
    assert [answer.ttl for _, answer in door.answers] == [granted]


async def test_a_hello_of_a_stranger_beyond_the_bounds_is_not_answered(door: Door) -> None:
    """Its worker asks again, and comes in when Postgres knows it."""
    door.intake.admission = Admission(max_grants=0.0)
    door.hello(incarnation="a")
    await door.greetings.run_once()
    assert (door.answers, door.book.get("w")) == ([], None)
    door.intake.admission.invite(["w"], door.ears.now)
    door.hello(incarnation="a")
    await door.greetings.run_once()
    door.book.granted("w", 7)
    await door.greetings.run_once()

    assert door.answered() == [("inbox", 7)]


async def test_a_hello_is_not_answered_while_anything_of_a_former_life_is_owing(door: Door) -> None:
    """Else the new process would claim beside rows that are going back under its name."""
    door.postgres.unreturned = {"w"}
    for worker in ("w", "v"):
        door.hello(worker, reply=worker, incarnation="a")
    await door.greetings.run_once()
    door.book.granted("w", 7)
    door.book.granted("v", 8)

    assert await door.greetings.run_once() == 1
    assert door.answered() == [("v", 8)]
    assert await door.greetings.run_once() == 0
    door.postgres.unreturned.clear()
    assert await door.greetings.run_once() == 1
    assert door.answered() == [("w", 7)]
    assert door.postgres.asked == [["w", "v"], ["w"], ["w"]]


async def test_an_arrival_with_work_of_a_former_life_ends_that_life(door: Door) -> None:
    """It is answered when that has its verdict, with the epoch of its own life."""
    door.postgres.former = {"w"}
    door.hello(incarnation="b", uptime=2.0)
    await door.greetings.run_once()
    ending = ending_of(door.book)
    assert (ending.reason, ending.incarnation, ending.reborn_at) == ("restarted", None, 98.0)
    assert door.wakes.lives.is_set()
    door.book.granted("w", 1)
    assert await door.greetings.run_once() == 0
    door.book.ended("w", 1, door.ears.now)
    assert await door.greetings.run_once() == 0
    door.book.granted("w", 2)

    assert await door.greetings.run_once() == 1
    assert door.answered() == [("inbox", 2)]
    assert len(door.postgres.looked) == 1


async def test_a_hello_that_ends_a_known_life_is_answered_after_the_verdict(door: Door) -> None:
    """Nothing has to be looked for: its end is under way."""
    door.hello(incarnation="a")
    await door.greetings.run_once()
    door.book.granted("w", 1)
    await door.greetings.run_once()
    door.answers.clear()
    door.hello(incarnation="b")
    assert await door.greetings.run_once() == 0
    door.book.ended("w", 1, door.ears.now)
    door.book.granted("w", 2)

    assert await door.greetings.run_once() == 1
    assert door.answered() == [("inbox", 2)]
    assert (len(door.postgres.looked), door.postgres.asked) == (1, [["w"], ["w"]])


async def test_a_name_that_postgres_refuses_waits_alone_until_it_is_looked_for(door: Door) -> None:
    """The others are answered; of itself nobody knows what its former life has left, so nothing is promised to it."""
    door.postgres.refused = {"w"}
    for worker in ("w", "v"):
        door.hello(worker, reply=worker, incarnation="a")
    with capture_logs() as logs:
        await door.greetings.run_once()
    door.book.granted("w", 7)
    door.book.granted("v", 8)
    await door.greetings.run_once()
    assert [line["worker"] for line in logs if line["event"] == "former_life_unknown"] == ["w"]
    assert door.answered() == [("v", 8)]

    door.postgres.refused.clear()
    door.ears.wait(PAUSE_LEAST)
    await door.greetings.run_once()
    assert door.answered() == [("w", 7)]


async def test_many_arrivals_are_looked_for_in_pieces(door: Door) -> None:
    """A statement that is too slow for all of them would be so at every try."""
    for number in range(BATCH + 1):
        door.hello(f"w{number}", incarnation="a")
    await door.greetings.run_once()

    assert [len(names) for names in door.postgres.looked] == [BATCH, 1]
    assert not door.book.arrivals


async def test_while_postgres_is_away_nobody_is_answered(door: Door) -> None:
    """What a former life has left is not known, and is looked for when it is back."""
    door.hello(incarnation="a")
    door.postgres.away = True
    with pytest.raises(DatabaseAwayError):
        await door.greetings.run_once()
    assert door.book.arrivals["w"].greeted
    door.postgres.away = False
    await door.greetings.run_once()

    assert not door.book.arrivals


@pytest.mark.parametrize("fields", [{}, {"incarnation": ""}, {"incarnation": 7}])
async def test_a_hello_that_is_not_legible_is_refused(door: Door, fields: dict[str, Any]) -> None:
    """In a line that says why, and at once."""
    door.hello(**fields)

    ((reply, error),) = door.complaints()
    assert reply == "inbox"
    assert error is not None
    assert await door.greetings.run_once() == 0
    assert len(door.book) == 0


async def test_a_hello_of_an_incarnation_that_was_replaced_is_refused(door: Door) -> None:
    """Whether it says it late, or was replaced while it waited."""
    door.hello(incarnation="a", reply="first")
    door.hello(incarnation="b", reply="second")
    assert door.complaints() == [("first", "a is over: a newer incarnation of w was heard")]
    door.hello(incarnation="a", reply="late")
    ((reply, error),) = door.complaints()
    assert (reply, "is over" in (error or "")) == ("late", True)
    door.book.restart("w", door.ears.now, Arrival("c", door.ears.time), former="b")
    assert await door.greetings.run_once() == 0

    assert door.complaints() == [("second", "b is over: a newer incarnation of w was heard")]
    await door.greetings.run_once()
    assert door.answers == []


async def test_a_follower_keeps_the_book_and_is_silent(door: Door) -> None:
    """The leader has heard it as well; and who takes the lead later does not answer an inbox that nobody reads."""
    door.leads = False
    door.hello(incarnation="a")
    door.hello()
    assert (len(door.book), list(door.book.arrivals)) == (1, ["w"])
    door.leads = True
    await door.greetings.run_once()
    door.book.granted("w", 1)
    await door.greetings.run_once()

    assert door.answers == []


async def test_a_hello_without_an_inbox_is_taken_all_the_same(door: Door) -> None:
    """Nobody is answered, not even that it is refused."""
    door.hello(incarnation="a", reply="")
    door.hello(reply="")
    await door.greetings.run_once()
    door.book.granted("w", 1)
    await door.greetings.run_once()

    assert lease_of(door.book).incarnation == "a"
    assert door.answers == []


async def test_no_more_wait_than_memory_should_hold(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes then asks again and is in the book meanwhile; who waits already may ask by another inbox."""
    monkeypatch.setattr(greetings, "WAITING_MOST", 2)
    for worker in ("u", "v", "w"):
        door.hello(worker, reply=worker, incarnation="a")
    door.hello("v", reply="again", incarnation="a")
    await door.greetings.run_once()
    for epoch, worker in enumerate(("u", "v", "w"), start=1):
        door.book.granted(worker, epoch)
    assert await door.greetings.run_once() == 2
    assert door.answered() == [("u", 1), ("again", 2)]
    assert door.intake.counts["beyond_hellos_waiting"] == 1
    door.hello("w", reply="w", incarnation="a")
    await door.greetings.run_once()

    assert door.answered() == [("w", 3)]


async def test_nobody_is_answered_who_has_stopped_waiting(door: Door) -> None:
    """After a minute, and not before; it asks again."""
    for worker, seconds in (("v", 0.25), ("w", 0.0)):
        door.hello(worker, reply=worker, incarnation="a")
        door.ears.wait(seconds)
    await door.greetings.run_once()
    door.book.granted("v", 1)
    door.book.granted("w", 2)
    door.ears.wait(FORGET_SECONDS)
    await door.greetings.run_once()

    assert door.answered() == [("w", 2)]


async def test_who_arrives_while_another_is_looked_up_waits_for_its_own(door: Door) -> None:
    """It has beaten before, and has an epoch: that does not mean that nothing of a former life is left."""
    door.book.beat("w", door.ears.now, Heartbeat(incarnation="a"), door.ears.time)
    door.book.granted("w", 1)
    door.hello("v", reply="v", incarnation="a")

    def comes_once() -> None:
        door.postgres.meanwhile = lambda: None
        door.hello("w", incarnation="a")

    door.postgres.meanwhile = comes_once
    await door.greetings.run_once()

    assert list(door.book.arrivals) == ["w"]
    assert door.answers == []
    await door.greetings.run_once()
    assert door.answered() == [("inbox", 1)]


async def test_a_name_of_which_postgres_knows_another_process_is_not_answered(door: Door) -> None:
    """Its epoch is that one's."""
    door.hello(incarnation="a")
    door.book.learn("w", door.ears.now, 60.0, 5, "b", None)
    await door.greetings.run_once()

    assert (door.answers, door.postgres.asked) == ([], [])


@pytest.mark.parametrize("change", ["goodbye", "restart", "gone", "another"])
async def test_what_changes_while_postgres_is_asked_is_not_answered(door: Door, change: str) -> None:
    """Whoever was welcome when it was asked may be over by the time of the answer."""
    changes: dict[str, Callable[[], object]] = {
        "goodbye": lambda: door.book.release("w", "a", door.ears.now),
        "restart": lambda: door.book.restart("w", door.ears.now, Arrival("b", door.ears.time), former="a"),
        "gone": lambda: door.book.forget("w"),
        "another": lambda: door.book.learn("w", door.ears.now, 60.0, 5, "b", None),
    }
    door.hello(incarnation="a")
    await door.greetings.run_once()
    door.book.granted("w", 1)
    door.postgres.meanwhile = changes[change]

    assert await door.greetings.run_once() == 0
    assert door.answers == []


async def test_an_arrival_that_is_replaced_while_postgres_is_asked_ends_nothing(door: Door) -> None:
    """The newer one's hello has ended it, and what was found goes back with its work."""
    door.hello(incarnation="a")
    door.book.granted("w", 1)
    door.postgres.former = {"w"}
    door.postgres.meanwhile = lambda: door.hello(incarnation="b")
    await door.greetings.run_once()

    assert (ending_of(door.book).incarnation, lease_of(door.book).incarnation) == ("a", "b")


async def test_an_arrival_that_turns_out_to_be_anothers_name_ends_nothing(door: Door) -> None:
    """Another replica has granted it to a process of which we knew nothing when we asked."""
    door.hello(incarnation="a")
    door.postgres.former = {"w"}
    door.postgres.meanwhile = lambda: door.book.learn("w", door.ears.now, 60.0, 5, "b", None)
    await door.greetings.run_once()

    assert not door.book.endings
    assert lease_of(door.book).incarnation == "b"


async def test_an_arrival_that_ends_while_postgres_is_asked_is_looked_up_when_it_has_ended(door: Door) -> None:
    """If its name lives on by then: what was found is not acted upon beside a verdict that is under way."""
    door.hello(incarnation="a")
    door.postgres.meanwhile = lambda: door.book.release("w", "a", door.ears.now)
    await door.greetings.run_once()

    assert list(door.book.arrivals) == ["w"]


async def test_an_arrival_that_is_withdrawn_while_postgres_is_asked_ends_nothing(door: Door) -> None:
    """Another process was heard beside it, and what was found may be that one's."""
    book = door.book
    book.beat("w", 100.5, Heartbeat(), 100.5)
    for at in (101.0, 104.0):
        book.beat("w", at, Heartbeat(incarnation="b", uptime=at - 100.0), at)
    assert list(book.arrivals) == ["w"]
    door.postgres.former = {"w"}
    door.postgres.meanwhile = lambda: book.beat("w", 105.0, Heartbeat(), 105.0)
    await door.greetings.run_once()

    assert not book.endings
    assert "w" in book.incarnations.conflicts


@pytest.mark.parametrize(("incarnation", "disputed"), [(None, True), ("c", True), ("b", False)])
async def test_what_was_found_is_disputed_by_a_beat_of_another_before_the_verdict(
    door: Door,
    incarnation: str | None,
    disputed: bool,  # noqa: FBT001 - a case of three
) -> None:
    """Only the new process itself says nothing against it."""
    book = door.book
    book.beat("w", 80.0, Heartbeat(), 80.0)
    for at in (101.0, 104.0):
        book.beat("w", at, Heartbeat(incarnation="b", uptime=at - 100.0), at)
    door.postgres.former = {"w"}
    await door.greetings.run_once()
    assert not ending_of(book).disputed
    book.beat("w", 105.0, Heartbeat(incarnation=incarnation, uptime=5.0), 105.0)

    assert ending_of(book).disputed is disputed
    if disputed:
        book.reinstate("w", 105.0)
        assert not book.endings
        assert lease_of(book).incarnation == "b"


async def test_what_is_older_than_postgres_knows_the_new_process_to_be_is_ended(door: Door) -> None:
    """A hello that was delivered late says less of when it began than that a life of it has ended."""
    door.hello(incarnation="a")
    door.postgres.former = {"w"}
    door.postgres.older = 20.0
    begun = door.book.arrivals["w"].begun
    await door.greetings.run_once()

    assert ending_of(door.book).reborn_at == begun - 20.0
