"""Hello: a new incarnation says that it begins, and neither loses nor inherits the former one's work."""

import pytest

from liveness.beginnings import Arrival
from liveness.lease import Proof
from liveness.leases import Arrived, Heard, LeaseTable
from liveness.messages import Heartbeat
from tests.unit.makers import ending_of, lapsed, lease_of, live, restored, says

TTL = 10.0


@pytest.fixture
def book() -> LeaseTable:
    """A book in which `w` lives as "a" under epoch 1."""
    book = LeaseTable(TTL)
    live(book, incarnation="a")
    return book


def hello(book: LeaseTable, incarnation: str, *, at: float, uptime: float | None = None, worker: str = "w") -> Heard:
    """Let a process say hello that is `uptime` seconds old."""
    return book.hello(worker, at, Heartbeat(incarnation=incarnation, uptime=uptime), at)


def test_a_hello_ends_the_former_life_at_once(book: LeaseTable) -> None:
    """What was touched before this process began goes back, and the former one is stale from now on."""
    assert hello(book, "b", at=5.0, uptime=1.0) is Heard.RESTARTED

    ending = ending_of(book)
    assert (ending.reason, ending.proof, ending.incarnation, ending.reborn_at) == ("restarted", True, "a", 4.0)
    assert lease_of(book).incarnation == "b"
    assert says(book, "a", at=6.0, uptime=50.0) is Heard.STALE
    assert not book.arrivals


def late(book: LeaseTable, incarnation: str, uptime: float | None) -> bool:
    """Say whether a goodbye, said by a process `uptime` seconds old, is passed by."""
    return not book.release("w", incarnation, 9.0, Proof("released", uptime=uptime))


@pytest.mark.parametrize(
    ("greeted", "uptime", "passed_by"),
    [(7.0, 6.9, True), (7.0, 7.0, False), (7.0, 7.1, False), (7.0, None, False), (None, 6.9, False), (0.1, 0.0, True)],
)
def test_a_goodbye_from_before_the_hello_is_of_a_life_that_is_over(
    book: LeaseTable, greeted: float | None, uptime: float | None, *, passed_by: bool
) -> None:
    """Where both state how old the process was; else it ends whatever its incarnation lives."""
    hello(book, "a", at=8.0, uptime=greeted)

    assert late(book, "a", uptime) is passed_by
    assert ("w" in book.endings) is not passed_by


@pytest.mark.parametrize("hellos", [(5.0, 8.0), (8.0, 5.0)])
def test_the_newest_hello_counts_whatever_comes_first(book: LeaseTable, hellos: tuple[float, float]) -> None:
    """An older one may come late as well."""
    for uptime in hellos:
        hello(book, "a", at=8.0, uptime=uptime)

    assert late(book, "a", 7.0)
    assert not late(book, "a", 8.0)


def test_the_first_hello_of_a_name_counts() -> None:
    """Nobody has heard the life before it, and its goodbye may be on its way."""
    book = LeaseTable(TTL)
    hello(book, "a", at=8.0, uptime=5.0)

    assert late(book, "a", 4.0)


def test_a_beat_is_no_hello(book: LeaseTable) -> None:
    """It is no news that a process beats which is about to leave."""
    hello(book, "a", at=1.0, uptime=1.0)
    says(book, "a", at=8.0, uptime=8.0)

    assert not late(book, "a", 7.0)


def test_a_goodbye_and_its_hello_in_their_order_and_the_goodbye_again(book: LeaseTable) -> None:
    """The former life ends, the next one begins and stays, and its own goodbye ends it."""
    assert not late(book, "a", 6.0)
    hello(book, "a", at=6.5, uptime=6.1)
    book.ended("w", 1, 7.0)
    book.granted("w", 2)

    assert late(book, "a", 6.0)
    assert (lease_of(book).epoch, lease_of(book).ending) == (2, None)
    assert not late(book, "a", 9.0)


def test_of_another_incarnation_no_hello_is_known(book: LeaseTable) -> None:
    """How old its predecessor was says nothing of a process: neither of one that says hello, nor of one that beats."""
    hello(book, "a", at=1.0, uptime=500.0)
    hello(book, "b", at=2.0, uptime=1.0)
    book.ended("w", 1, 3.0)
    book.granted("w", 2)
    assert late(book, "b", 0.5)
    assert not late(book, "b", 2.0)
    says(book, "c", at=4.0, uptime=0.5)
    book.ended("w", 2, 5.0)

    assert lease_of(book).incarnation == "c"
    assert not late(book, "c", 0.25)


def test_who_was_restored_has_said_hello_to_nobody_here() -> None:
    """Where Postgres does not know it."""
    book = LeaseTable(TTL)
    restored(book, "w", incarnation="a")

    assert not late(book, "a", 1.0)


def test_a_hello_of_a_life_that_has_its_epoch_is_to_be_told_to_postgres(book: LeaseTable) -> None:
    """Only the newest one; and of one that has none yet, the grant tells it."""
    hello(book, "a", at=8.0, uptime=7.0)
    assert list(book.changed) == ["w"]
    book.changed.clear()
    hello(book, "a", at=8.5, uptime=6.5)
    hello(book, "x", at=8.5, uptime=0.5, worker="new")
    hello(book, "x", at=9.0, uptime=1.0, worker="new")

    assert not book.changed


def test_a_hello_does_not_say_that_who_began_long_after_it_is_over(book: LeaseTable) -> None:
    """The older one begins another life beside it: what its goodbye ends is not the younger one's."""
    hello(book, "a", at=1.0, uptime=1.0)
    for at in (42.0, 45.0, 48.0, 51.0, 54.0):
        says(book, "b", at=at, uptime=at - 40.0)
    assert ending_of(book).by_beats
    says(book, "a", at=55.0, uptime=55.0)
    book.reinstate("w", 56.0)
    hello(book, "a", at=57.0, uptime=57.0)
    assert says(book, "b", at=58.0, uptime=18.0) is not Heard.STALE
    assert not book.release("w", "a", 58.5, Proof("released", uptime=56.0))

    assert book.release("w", "a", 59.0, Proof("released", uptime=58.0))
    assert lease_of(book).incarnation == "b"
    assert ending_of(book).reborn_at == pytest.approx(40.0)


def test_a_hello_says_that_all_others_are_over_that_may_be_older(book: LeaseTable) -> None:
    """As far as can be known within a ttl; and also those that do not say when they began."""
    says(book, "b", at=42.0, uptime=2.0)
    says(book, "a", at=43.0, uptime=43.0)
    hello(book, "a", at=44.0, uptime=8.0)

    assert says(book, "b", at=45.0, uptime=5.0) is Heard.STALE


def test_the_life_that_hello_begins_goes_on_under_a_new_epoch(book: LeaseTable) -> None:
    """With a full ttl."""
    hello(book, "b", at=5.0)
    lease = book.ended("w", 1, 6.0)

    assert lease is not None
    assert (lease.incarnation, lease.epoch, list(book.wanting)) == ("b", None, ["w"])
    assert book.incarnations.epoch_of("w", "a") == 1
    assert lapsed(book, 15.9) == []
    assert lapsed(book, 16.0) == ["w"]


def test_who_said_hello_does_not_lose_the_name_to_a_straggler_without_an_uptime() -> None:
    """Else what a former life has left is never looked for, no epoch is issued, and the hello is never answered."""
    book = LeaseTable(TTL)
    hello(book, "b", at=5.0)
    says(book, "a", at=5.5, uptime=None)

    assert book.arrivals["w"].incarnation == lease_of(book).incarnation == "b"


def test_saying_hello_again_is_without_effect(book: LeaseTable) -> None:
    """Before the verdict and after it, however late: it is a beat like others, and its beginning stays."""
    hello(book, "b", at=5.0)
    assert hello(book, "b", at=6.0) is Heard.AFTER_PROOF
    assert ending_of(book).reborn_at == 5.0
    book.ended("w", 1, 7.0)
    book.granted("w", 2)
    assert hello(book, "b", at=8.0) is Heard.RENEWED

    assert not book.endings
    assert not book.arrivals
    assert lease_of(book).epoch == 2
    assert lapsed(book, 18.0) == ["w"]


def test_a_hello_of_a_former_incarnation_is_stale(book: LeaseTable) -> None:
    """It was sent before the newer one's, and renews nothing."""
    hello(book, "b", at=5.0)

    assert hello(book, "a", at=6.0) is Heard.STALE
    assert lease_of(book).incarnation == "b"


@pytest.mark.parametrize("first", ["beat", "hello"])
@pytest.mark.parametrize(
    ("uptime", "heard"),
    [(61.0, Heard.STALE), (55.0, Heard.RESTARTED), (1.0, Heard.RESTARTED), (None, Heard.RESTARTED)],
)
def test_a_hello_of_who_began_long_before_the_one_that_lives_comes_late(
    first: str, uptime: float | None, heard: Heard
) -> None:
    """It was under way when the younger one began; whoever may have begun within a ttl is believed."""
    book = LeaseTable(TTL)
    if first == "hello":
        hello(book, "b", at=100.0, uptime=1.0)
    else:
        says(book, "b", at=100.0, uptime=1.0)
    # Began at 99; so 88.9 is too early by a ttl, and 95 is not.
    at = 149.9 if uptime == 61.0 else 150.0

    assert hello(book, "a", at=at, uptime=uptime) is heard
    assert lease_of(book).incarnation == ("b" if heard is Heard.STALE else "a")
    assert ("w" in book.endings) is (heard is Heard.RESTARTED)


@pytest.mark.parametrize("word", ["beats", "hello"])
def test_what_was_known_of_the_former_one_says_nothing_of_its_successor(book: LeaseTable, word: str) -> None:
    """When a process began, it says itself, with the first of its words that states an uptime."""
    hello(book, "a", at=1.0, uptime=0.5)
    if word == "hello":
        hello(book, "b", at=50.0)
    else:
        book.release("w", "a", 49.0)
        says(book, "b", at=50.0, uptime=None)
    assert lease_of(book).incarnation == "b"
    assert lease_of(book).begun is None

    hello(book, "b", at=60.0, uptime=9.0)
    hello(book, "b", at=70.0, uptime=1.0)

    assert lease_of(book).begun == 51.0


def test_who_said_hello_is_no_former_one_because_another_is_heard_beside_it() -> None:
    """What a life before it has left is found, while somebody without an uptime beats under the name, too."""
    book = LeaseTable(TTL)
    hello(book, "x", at=0.0)
    says(book, "y", at=0.0, uptime=None)
    book.restart("w", 0.0, book.arrivals["w"], former=None)

    assert lease_of(book).incarnation == "x"
    assert not book.incarnations.is_former("w", "x")


def test_who_is_reinstated_has_said_hello_and_begun_as_before(book: LeaseTable) -> None:
    """Heartbeats told of a restart, and the former process was heard since: its late goodbye ends nothing still."""
    hello(book, "a", at=1.0, uptime=500.0)
    for at in (2.0, 4.0, 6.0, 8.0):
        says(book, "b", at=at, uptime=at)
    says(book, "a", at=9.0, uptime=508.0)
    says(book, "b", at=10.0, uptime=10.0)
    says(book, "b", at=22.0, uptime=22.0)
    says(book, "b", at=25.0, uptime=25.0)
    assert lease_of(book).incarnation == "b"
    book.reinstate("w", 26.0)

    assert lease_of(book).incarnation == "a"
    assert late(book, "a", 499.0)
    assert lease_of(book).begun == -499.0


def test_the_first_hello_of_a_name_asks_for_what_a_former_life_has_left() -> None:
    """No epoch before that is known."""
    book = LeaseTable(TTL)
    assert hello(book, "b", at=5.0, uptime=1.0) is Heard.STARTED

    arrival = book.arrivals["w"]
    assert (arrival.incarnation, arrival.begun) == ("b", 4.0)
    assert list(book.wanting) == ["w"]
    assert arrival.greeted
    assert not book.endings
    book.arrived("w", "b")
    assert not book.arrivals


def test_what_a_former_life_has_left_is_ended_as_nobodys(book: LeaseTable) -> None:
    """The database holds work of a process that the book never knew: it ends under an epoch of its own."""
    hello(book, "b", at=5.0, worker="x")
    assert book.restart("x", 6.0, Arrival("b", 4.0), former=None)

    ending = ending_of(book, "x")
    assert (ending.reason, ending.incarnation, ending.reborn_at) == ("restarted", None, 4.0)
    assert (list(book.wanting), book.arrivals) == (["x"], {})
    book.granted("x", 5)
    assert book.ended("x", 5, 7.0) is lease_of(book, "x")
    assert lease_of(book, "x").incarnation == "b"


def test_a_hello_after_beats_that_showed_the_beginning_takes_the_earlier_one(book: LeaseTable) -> None:
    """Of a name that was restored without an incarnation, nothing of the former process is known."""
    restored(book, "x")
    says(book, "b", at=5.0, uptime=3.0, worker="x")
    assert hello(book, "b", at=6.0, uptime=1.0, worker="x") is Heard.RENEWED

    assert book.arrivals["x"].begun == 2.0
    assert "x" not in book.incarnations.claims


def test_a_hello_after_a_beat_ends_the_former_life(book: LeaseTable) -> None:
    """One beat with an uptime is not believed yet; a hello is."""
    says(book, "b", at=5.0, uptime=3.0)

    assert hello(book, "b", at=6.0, uptime=4.0) is Heard.RESTARTED
    assert (ending_of(book).incarnation, ending_of(book).reborn_at) == ("a", 2.0)


def test_a_hello_after_a_beat_without_an_uptime_ends_the_former_life(book: LeaseTable) -> None:
    """It is what the complaint about such a beat advises. Without it the new process would inherit the work."""
    assert says(book, "b", at=5.0, uptime=None) is Heard.ADOPTED
    hello(book, "b", at=6.0, uptime=2.0)

    assert "w" in book.endings or "w" in book.arrivals


@pytest.mark.parametrize("known", [True, False])
def test_a_hello_after_a_beat_without_an_uptime_asks_for_what_is_left(*, known: bool) -> None:
    """Nobody has looked for a former life's work yet."""
    book = LeaseTable(TTL)
    if known:
        restored(book, "w")
    says(book, "b", at=5.0, uptime=None)
    hello(book, "b", at=6.0, uptime=2.0)

    assert "w" in book.arrivals


def test_a_hello_settles_a_conflict(book: LeaseTable) -> None:
    """Whoever begins now is known."""
    for at in (5.0, 6.0, 7.0):
        says(book, "b", at=at, uptime=None)
        says(book, "a", at=at + 0.5, uptime=None)
    assert book.incarnations.conflicts == {"w"}
    hello(book, "c", at=8.0)

    assert not book.incarnations.conflicts
    assert not book.incarnations.claims


def test_who_was_adopted_from_is_a_former_one_after_the_hello(book: LeaseTable) -> None:
    """Its beats do not keep the next one's life up, and are no conflict."""
    says(book, "b", at=5.0, uptime=None)
    hello(book, "b", at=6.0, uptime=2.0)

    assert says(book, "a", at=7.0, uptime=None) is Heard.STALE


def test_a_hello_without_an_uptime_begins_no_later_than_the_first_beat(book: LeaseTable) -> None:
    """What it has touched since we heard it first is its own, whenever it says hello."""
    says(book, "b", at=5.0, uptime=None)
    hello(book, "b", at=50.0)

    begun = book.arrivals["w"].begun if "w" in book.arrivals else ending_of(book).reborn_at
    assert begun is not None
    assert begun <= 5.0


def test_a_hello_of_a_life_that_another_replica_granted_is_without_effect() -> None:
    """The worker says it again on a new connection; its leader is gone, and knew it."""
    book = LeaseTable(TTL)
    says(book, "b", at=5.0, uptime=None)
    book.learn("w", 6.0, TTL, 7, "b", None)

    assert hello(book, "b", at=50.0) is Heard.RENEWED
    assert not book.arrivals
    assert not book.endings


def test_a_hello_after_a_goodbye_begins_the_next_life(book: LeaseTable) -> None:
    """The goodbye's reason stays; what the new process touches is its own."""
    book.release("w", "a", 4.0)
    assert hello(book, "b", at=5.0, uptime=0.5) is Heard.RESTARTED

    assert (ending_of(book).reason, ending_of(book).reborn_at) == ("released", 4.5)
    assert book.ended("w", 1, 6.0) is lease_of(book)
    assert lease_of(book).incarnation == "b"


def test_a_lapsed_life_ends_by_a_hello_as_restarted(book: LeaseTable) -> None:
    """It is not revived by the next process."""
    book.lapse(10.0)
    assert hello(book, "b", at=11.0) is Heard.RESTARTED

    assert (ending_of(book).reason, ending_of(book).proof) == ("restarted", True)


def test_the_third_process_does_not_inherit_what_the_second_claimed_while_the_first_was_ending(
    book: LeaseTable,
) -> None:
    """The verdict waits for Postgres: "b" claims work, dies, and "c" says hello.

    The verdict on "a" leaves what was touched since "b" began. So it has to be looked up what "b" has left, before "c"
    is answered.
    """
    says(book, "b", at=101.0, uptime=1.0)
    assert says(book, "b", at=104.0, uptime=4.0) is Heard.RESTARTED
    assert hello(book, "c", at=110.0, uptime=0.5) is Heard.RESTARTED
    book.ended("w", 1, 111.0)

    assert lease_of(book).incarnation == "c"
    assert "w" in book.endings or "w" in book.arrivals


def test_a_hello_of_a_name_that_wants_an_epoch_ends_that_life_too(book: LeaseTable) -> None:
    """It gets an epoch to end under."""
    book.beat("x", 0.0, Heartbeat(incarnation="a"))
    assert hello(book, "b", at=1.0, worker="x") is Heard.RESTARTED
    assert (list(book.wanting), ending_of(book, "x").incarnation) == (["x"], "a")
    book.granted("x", 7)
    lease = book.ended("x", 7, 2.0)

    assert lease is not None
    assert (lease.incarnation, lease.epoch, list(book.wanting)) == ("b", None, ["x"])
    assert book.incarnations.epoch_of("x", "a") == 7


def test_a_hello_says_that_all_others_of_its_name_are_over(book: LeaseTable) -> None:
    """A second process beside the first is a former one, too: what it touched is not the new life's."""
    says(book, "b", at=5.0, uptime=1.0)
    assert hello(book, "c", at=6.0) is Heard.RESTARTED
    assert says(book, "b", at=7.0, uptime=3.0) is Heard.STALE

    assert (ending_of(book).incarnation, ending_of(book).reborn_at) == ("a", 6.0)


def test_a_third_process_does_not_keep_from_a_hello_what_another_has_left(book: LeaseTable) -> None:
    """It beats, and is over all the same: what it has touched goes back, too."""
    hello(book, "b", at=6.0)
    says(book, "c", at=7.0, uptime=100.0)

    assert ending_of(book).reborn_at == 6.0


def test_a_hello_that_was_read_late_takes_nothing_of_who_began_behind_it(book: LeaseTable) -> None:
    """We stood still: the third process began after the second one's hello was sent, and is read behind it."""
    beat = Heartbeat(incarnation="b", uptime=0.0)
    assert book.hello("w", 50.0, beat, 50.0, 30.0) is Heard.RESTARTED
    assert ending_of(book).reborn_at == 50.0
    book.beat("w", 50.0, Heartbeat(incarnation="c", uptime=4.0), 50.0, Arrived(50.0, 29.0, 50.0))

    assert ending_of(book).reborn_at == 25.0


def test_a_hello_after_a_beat_that_was_read_behind_a_gap_looks_for_all_that_is_older(book: LeaseTable) -> None:
    """How long that beat may have waited says nothing of the former process's work."""
    book.release("w", "a", 45.0)
    beat = Heartbeat(incarnation="b", uptime=2.0)
    book.beat("w", 46.0, beat, 46.0, Arrived(46.0, 15.0, 46.0))
    book.ended("w", 1, 46.25)
    hello(book, "b", at=46.5, uptime=2.5)

    assert book.arrivals["w"].begun == 44.0


def test_who_has_left_before_it_was_believed_begins_again_by_a_later_hello(book: LeaseTable) -> None:
    """Not by one that it said before its goodbye; and it is as alive as anybody then."""
    says(book, "b", at=6.0, uptime=1.0)
    assert late(book, "b", 4.0)
    assert says(book, "b", at=9.5, uptime=4.5) is Heard.STALE
    assert hello(book, "b", at=9.5, uptime=4.0) is Heard.STALE
    assert hello(book, "b", at=9.5, uptime=4.25) is Heard.RESTARTED

    assert lease_of(book).incarnation == "b"
    assert says(book, "b", at=10.0, uptime=5.0) is not Heard.STALE
    assert ending_of(book).incarnation == "a"


@pytest.mark.parametrize(("left_at", "uptime"), [(None, 9.0), (4.0, None)])
def test_who_has_left_begins_again_only_where_it_is_known_which_came_first(
    book: LeaseTable, left_at: float | None, uptime: float | None
) -> None:
    """Its hello may be older than its goodbye."""
    says(book, "b", at=6.0, uptime=1.0)
    assert late(book, "b", left_at)

    assert hello(book, "b", at=9.5, uptime=uptime) is Heard.STALE


def test_who_has_left_and_was_replaced_since_does_not_begin_again(book: LeaseTable) -> None:
    """Then not only its own word says that it is over."""
    says(book, "b", at=6.0, uptime=1.0)
    assert late(book, "b", 4.0)
    book.incarnations.replaced("w", "b", 1)

    assert hello(book, "b", at=9.5, uptime=4.25) is Heard.STALE


def test_the_late_hello_of_who_has_died_replaces_nobody(book: LeaseTable) -> None:
    """Its life has ended and its name has left the book; another process has that name since."""
    book.release("w", "a", 5.0, Proof("died"))
    book.ended("w", 1, 5.5)
    says(book, "b", at=6.0, uptime=None)

    assert hello(book, "a", at=7.0, uptime=3.0) is Heard.STALE
    assert (lease_of(book).incarnation, lease_of(book).ending) == ("b", None)


def test_the_late_hello_of_who_has_died_replaces_nobody_who_was_heard_before_that_was_said(book: LeaseTable) -> None:
    """Neither if it was never heard, nor if it was heard beside the living one, whatever its age."""
    says(book, "b", at=2.0, uptime=1.0)
    for incarnation in ("b", "c"):
        assert not book.release("w", incarnation, 5.0, Proof("died", uptime=3.0))

        assert hello(book, incarnation, at=7.0, uptime=6.0) is Heard.STALE


def test_who_was_said_to_have_died_and_is_heard_alone_lives(book: LeaseTable) -> None:
    """A certificate may lie."""
    book.release("w", "a", 5.0, Proof("died"))
    book.ended("w", 1, 5.5)

    assert hello(book, "a", at=7.0, uptime=7.0) is Heard.STARTED
    assert not book.incarnations.is_former("w", "a")


def test_of_the_dead_the_latest_are_remembered(book: LeaseTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever names they had."""
    monkeypatch.setattr("liveness.formers.DEAD_REMEMBERED", 2)
    for name in ("x", "y", "x", "z"):
        book.incarnations.died(name, "a")
    book.incarnations.died("u", None)

    assert [name for name in "xyz" if book.incarnations.is_former(name, "a")] == ["x", "z"]
