"""Two processes of one name: nothing is taken while both are heard, and what settles it."""

import pytest

from liveness.leases import Arrived, Heard, LeaseTable
from liveness.messages import Heartbeat
from tests.unit.makers import ending_of, lease_of, live, says

TTL = 10.0


@pytest.fixture
def book() -> LeaseTable:
    """A book in which `w` lives as "a" under epoch 1."""
    book = LeaseTable(TTL)
    live(book, incarnation="a")
    return book


def test_two_incarnations_that_beat_are_a_conflict_in_which_nothing_is_taken(book: LeaseTable) -> None:
    """Told when it begins; the name lives, and nobody can say whose a row is."""
    heard = []
    for at in range(101, 200, 4):
        heard += [says(book, "b", at=float(at), uptime=at - 100.0), says(book, "a", at=at + 1.0, uptime=at + 50.0)]

    assert [one for one in heard if one is not Heard.RENEWED] == [Heard.CONFLICT]
    assert "w" in book.incarnations.conflicts
    assert not book.endings


def test_two_incarnations_without_an_uptime_are_a_conflict_too(book: LeaseTable) -> None:
    """Loud, and not a change of the name's process with every beat, which would be written each time."""
    heard = []
    changes = 0
    for at in range(100, 140, 2):
        heard += [says(book, "b", at=float(at), uptime=None), says(book, "a", at=at + 1.0, uptime=None)]
        changes += len(book.changed)
        book.changed.clear()

    assert "w" in book.incarnations.conflicts
    assert Heard.CONFLICT in heard
    assert changes <= 2


def test_a_conflict_of_two_new_ones_is_a_conflict_too(book: LeaseTable) -> None:
    """The process that the book knows is silent, and nobody can say which of the two came after it."""
    for at in range(101, 141, 4):
        says(book, "b", at=float(at), uptime=at - 100.0)
        says(book, "c", at=at + 1.0, uptime=at - 99.0)

    assert "w" in book.incarnations.conflicts
    assert not book.endings


def test_a_third_process_does_not_make_us_forget_that_the_first_lives(book: LeaseTable) -> None:
    """It was heard between the second one's beats, within its ttl: nothing is taken from it."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "a", at=102.0, uptime=50.0)
    says(book, "c", at=103.0, uptime=1.0)
    for at in (104.0, 107.0, 110.0):
        assert says(book, "b", at=at, uptime=at - 100.0) is not Heard.RESTARTED

    assert not book.endings


def test_a_conflict_is_over_when_the_former_one_was_silent_for_a_ttl(book: LeaseTable) -> None:
    """Then its life ends."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "a", at=102.0, uptime=50.0)
    for at in (105.0, 108.0, 111.875):
        assert says(book, "b", at=at, uptime=at - 100.0) is Heard.RENEWED
    assert says(book, "b", at=112.0, uptime=12.0) is Heard.RESTARTED

    assert "w" not in book.incarnations.conflicts
    assert (ending_of(book).incarnation, ending_of(book).reborn_at) == ("a", 100.0)


def test_a_rival_is_silent_by_what_is_proven(book: LeaseTable) -> None:
    """And not by the beat that we read: behind it in the socket there may be one of the other's."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "a", at=102.0, uptime=50.0)

    def b_is_read(at: float, proven: float) -> Heard:
        beat = Heartbeat(incarnation="b", uptime=at - 100.0)
        return book.beat("w", at, beat, at, Arrived(at, proven, proven))

    assert b_is_read(112.5, 111.75) is Heard.RENEWED
    assert b_is_read(112.75, 112.0) is Heard.RESTARTED


def test_beats_that_name_no_incarnation_are_a_rival_of_a_new_one(book: LeaseTable) -> None:
    """They may be the former process's: nothing is taken until they have been silent for a ttl."""
    says(book, "b", at=101.0, uptime=1.0)
    assert book.beat("w", 102.0, Heartbeat(), 102.0) is Heard.CONFLICT
    for at in (105.0, 108.0, 111.875):
        assert says(book, "b", at=at, uptime=at - 100.0) is Heard.RENEWED
    assert says(book, "b", at=112.0, uptime=12.0) is Heard.RESTARTED

    assert "w" not in book.incarnations.conflicts


def test_a_beat_that_names_no_incarnation_settles_what_was_claimed_by_one_that_is_over(book: LeaseTable) -> None:
    """The new one was silent for a ttl."""
    says(book, "b", at=101.0, uptime=1.0)

    assert book.beat("w", 111.0, Heartbeat(), 111.0) is Heard.RENEWED
    assert not book.incarnations.claims


def test_beats_that_name_no_incarnation_are_a_rival_of_the_leases_own_too() -> None:
    """As long as its beginning is not settled, what a former life has left is not looked for beside them."""
    book = LeaseTable(TTL)
    says(book, "b", at=101.0, uptime=1.0)
    assert book.beat("w", 102.0, Heartbeat(), 102.0) is Heard.CONFLICT
    for at in (105.0, 111.875):
        says(book, "b", at=at, uptime=at - 100.0)
        assert not book.arrivals
    says(book, "b", at=112.0, uptime=12.0)

    assert book.arrivals["w"].begun == 100.0


def test_a_conflict_is_over_when_the_new_one_was_silent_for_a_ttl(book: LeaseTable) -> None:
    """The life goes on as it was, and a later conflict is told anew."""
    says(book, "b", at=101.0, uptime=1.0)
    assert says(book, "a", at=110.875, uptime=50.0) is Heard.CONFLICT
    assert says(book, "a", at=111.0, uptime=50.125) is Heard.RENEWED
    assert "w" not in book.incarnations.conflicts

    says(book, "b", at=112.0, uptime=12.0)
    assert says(book, "a", at=113.0, uptime=52.0) is Heard.CONFLICT


def test_a_goodbye_in_a_conflict_settles_it(book: LeaseTable) -> None:
    """The one that lives on is known, and what it has touched is kept."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "a", at=102.0, uptime=50.0)
    assert book.release("w", "a", 103.0)

    assert (ending_of(book).incarnation, ending_of(book).reborn_at) == ("a", 100.0)
    assert lease_of(book).incarnation == "b"
    assert "w" not in book.incarnations.conflicts


def test_a_third_process_waits_for_the_verdict_on_the_first(book: LeaseTable) -> None:
    """The second one's life has not begun yet: it can be ended when it has."""
    book.release("w", "a", 100.0)
    says(book, "b", at=101.0, uptime=1.0)
    # By then the second one is silent for a ttl.
    for at in (113.0, 116.0):
        assert says(book, "c", at=at, uptime=at - 112.0) is Heard.AFTER_PROOF
    assert lease_of(book).incarnation == "b"
    book.ended("w", 1, 117.0)

    assert says(book, "c", at=120.0, uptime=8.0) is Heard.RESTARTED
    assert ending_of(book).incarnation == "b"


def test_a_goodbye_beside_one_without_an_uptime_keeps_what_that_has_touched_since_it_was_heard(
    book: LeaseTable,
) -> None:
    """Nobody knows when it began; but it was there by then."""
    book.incarnations.introduce(lease_of(book), "a")
    says(book, "b", at=101.0, uptime=None)
    says(book, "a", at=102.0, uptime=50.0)
    says(book, "b", at=104.0, uptime=None)
    says(book, "a", at=105.0, uptime=53.0)
    assert book.release("w", "a", 106.0)

    assert (ending_of(book).incarnation, lease_of(book).incarnation) == ("a", "b")
    assert ending_of(book).reborn_at == 101.0


def test_a_beat_that_names_no_incarnation_disputes_a_restart_that_beats_told_of(book: LeaseTable) -> None:
    """The new process names itself, so this is another one, which was thought over: the verdict is not asked for."""
    says(book, "b", at=101.0, uptime=1.0)
    assert says(book, "b", at=104.0, uptime=4.0) is Heard.RESTARTED
    assert not ending_of(book).disputed
    book.beat("w", 105.0, Heartbeat(), 105.0)

    assert ending_of(book).disputed
    book.reinstate("w", 105.0)
    assert not book.endings
    assert "w" in book.incarnations.conflicts


def test_a_restart_that_was_disputed_is_not_believed_within_a_ttl_of_the_beat_that_disputed_it(
    book: LeaseTable,
) -> None:
    """A verdict goes by what is surely over, and that is seconds behind the beat."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "b", at=104.0, uptime=4.0)
    book.beat("w", 105.0, Heartbeat(), 105.0)
    book.reinstate("w", 103.0)

    assert says(book, "b", at=105.0 + TTL - 0.5, uptime=4.5 + TTL) is Heard.RENEWED
    assert not book.endings
    assert says(book, "b", at=105.0 + TTL, uptime=5.0 + TTL) is Heard.RESTARTED


def test_what_a_former_life_left_is_looked_for_when_a_rival_is_over_that_had_hidden_it() -> None:
    """The rival's claim stood in the place of the living one's own."""
    book = LeaseTable(TTL)
    book.beat("w", 90.0, Heartbeat(), 90.0)
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "c", at=111.5, uptime=1.0)
    assert book.incarnations.claims["w"].incarnation == "c"
    for at in (121.5, 124.0, 127.0):
        says(book, "b", at=at, uptime=at - 100.0)

    assert book.arrivals["w"].incarnation == "b"
    assert book.arrivals["w"].begun == 100.0


def test_a_third_process_without_an_uptime_does_not_take_the_place_of_the_second(book: LeaseTable) -> None:
    """That is still heard, and what it has touched is its own."""
    book.incarnations.introduce(lease_of(book), "a")
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "a", at=102.0, uptime=50.0)
    says(book, "b", at=104.0, uptime=4.0)
    assert says(book, "c", at=105.0, uptime=None) is Heard.RENEWED
    assert book.release("w", "a", 106.0)

    assert (lease_of(book).incarnation, ending_of(book).reborn_at) == ("b", 100.0)


def test_a_beat_that_names_no_incarnation_withdraws_what_beats_told_of() -> None:
    """What a former life left is not looked for while that may be heard; it is when it was silent for a ttl."""
    book = LeaseTable(TTL)
    book.beat("w", 100.5, Heartbeat(), 100.5)
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "b", at=104.0, uptime=4.0)
    assert list(book.arrivals) == ["w"]

    assert book.beat("w", 105.0, Heartbeat(), 105.0) is Heard.CONFLICT
    assert not book.arrivals
    assert "w" in book.incarnations.conflicts
    for at in (108.0, 111.0, 114.0):
        says(book, "b", at=at, uptime=at - 100.0)
        assert not book.arrivals
    says(book, "b", at=115.0, uptime=15.0)
    assert (book.arrivals["w"].incarnation, book.arrivals["w"].begun) == ("b", 100.0)


def test_a_beat_that_names_no_incarnation_does_not_withdraw_a_hello() -> None:
    """Who says hello says that all others are over."""
    book = LeaseTable(TTL)
    book.hello("w", 101.0, Heartbeat(incarnation="b", uptime=1.0), 101.0)
    book.beat("w", 102.0, Heartbeat(), 102.0)

    assert list(book.arrivals) == ["w"]


def test_a_new_incarnation_withdraws_what_beats_told_of_and_a_goodbye_then_keeps_its_work() -> None:
    """What it has touched since it began is its own."""
    book = LeaseTable(TTL)
    book.beat("w", 90.0, Heartbeat(), 90.0)
    says(book, "a", at=101.0, uptime=1.0)
    says(book, "a", at=104.0, uptime=4.0)
    assert list(book.arrivals) == ["w"]
    assert says(book, "b", at=106.0, uptime=1.0) is Heard.RENEWED

    assert not book.arrivals
    assert book.release("w", "a", 107.0)
    assert (lease_of(book).incarnation, ending_of(book).reborn_at) == ("b", 105.0)


def test_what_a_goodbye_spared_is_looked_for_when_the_successors_beginning_is_known(book: LeaseTable) -> None:
    """Its first beat came behind a gap, and may have been sent long before: the verdict takes what is older."""
    beat = Heartbeat(incarnation="b", uptime=0.0)
    book.beat("w", 100.0, beat, 100.0, Arrived(100.0, 80.0, 100.0))
    assert book.release("w", "a", 101.0)
    assert ending_of(book).reborn_at == 80.0
    book.ended("w", 1, 102.0)
    book.granted("w", 2)
    for at in (104.0, 108.0, 112.0):
        says(book, "b", at=at, uptime=at - 100.0)

    assert (book.arrivals["w"].incarnation, book.arrivals["w"].begun) == ("b", 100.0)


def test_what_a_verdict_spared_for_a_third_is_looked_for_when_that_is_over(book: LeaseTable) -> None:
    """A third one that was heard behind a hello may have begun before it, and hides what a former process left."""
    book.hello("w", 20.0, Heartbeat(incarnation="b", uptime=0.0), 20.0, waited=15.0)
    book.beat("w", 21.0, Heartbeat(incarnation="c", uptime=15.0), 21.0, Arrived(21.0, 6.0, 21.0))
    assert ending_of(book).reborn_at == -9.0
    # Asked once more, as long as there is no answer: it is no second beginning, and the other is none of before.
    book.hello("w", 22.0, Heartbeat(incarnation="b", uptime=2.0), 22.0)
    assert says(book, "c", at=22.0, uptime=16.0) is Heard.AFTER_PROOF
    book.ended("w", 1, 22.0)
    book.granted("w", 2)

    for at in (24.0, 28.0, 32.0):
        says(book, "b", at=at, uptime=at - 20.0)
    assert book.arrivals == {}
    says(book, "b", at=36.0, uptime=16.0)

    assert book.arrivals["w"].begun == 20.0


def test_a_third_process_disputes_a_restart_that_beats_told_of(book: LeaseTable) -> None:
    """What it has touched would go with the first one's."""
    says(book, "b", at=101.0, uptime=1.0)
    assert says(book, "b", at=104.0, uptime=4.0) is Heard.RESTARTED
    says(book, "c", at=105.0, uptime=None)

    assert ending_of(book).disputed


def test_whoever_comes_next_has_to_wait_for_a_third_that_is_still_heard(book: LeaseTable) -> None:
    """It was heard beside a second one that is over, and since the fourth began: what it has touched is its own."""
    for at in (104.0, 108.0, 112.0, 116.0):
        says(book, "b", at=at, uptime=at - 100.0)
        says(book, "a", at=at + 0.25, uptime=150.0)
        says(book, "c", at=at + 0.5, uptime=at - 99.0)
    says(book, "d", at=118.0, uptime=1.0)
    says(book, "c", at=125.0, uptime=26.0)
    for at in (127.0, 130.0, 133.0):
        assert says(book, "d", at=at, uptime=at - 117.0) is not Heard.RESTARTED

    assert says(book, "d", at=136.0, uptime=19.0) is Heard.RESTARTED


def test_what_a_former_life_left_is_looked_for_when_a_rival_has_said_goodbye() -> None:
    """Its claim stood in the place of the living one's own."""
    book = LeaseTable(TTL)
    book.beat("w", 90.0, Heartbeat(), 90.0)
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "c", at=102.0, uptime=1.0)
    assert not book.release("w", "c", 103.0)
    for at in (104.0, 107.0):
        says(book, "b", at=at, uptime=at - 100.0)

    assert (book.arrivals["w"].incarnation, book.arrivals["w"].begun) == ("b", 100.0)


def test_a_goodbye_of_the_second_process_keeps_the_work_of_a_third(book: LeaseTable) -> None:
    """The second one had followed the first by a goodbye, too, and the third was heard beside both."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "c", at=103.0, uptime=1.0)
    assert book.release("w", "a", 104.0)
    book.ended("w", 1, 104.5)
    book.granted("w", 2)
    assert book.release("w", "b", 105.0)

    assert (lease_of(book).incarnation, ending_of(book).reborn_at) == ("c", 102.0)


def test_a_goodbye_of_the_second_process_leaves_nothing_to_a_third_that_is_over(book: LeaseTable) -> None:
    """It has said goodbye before."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "c", at=103.0, uptime=1.0)
    assert not book.release("w", "c", 103.5)
    assert book.release("w", "a", 104.0)
    book.ended("w", 1, 104.5)
    book.granted("w", 2)
    assert book.release("w", "b", 105.0)

    assert (lease_of(book).incarnation, ending_of(book).reborn_at) == ("b", None)


def test_a_third_that_is_older_than_the_second_keeps_its_work(book: LeaseTable) -> None:
    """What any of those may have touched that are heard beside the one that says goodbye is kept."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "c", at=103.0, uptime=13.0)
    assert book.release("w", "a", 104.0)

    assert ending_of(book).reborn_at == 90.0


def test_a_third_is_known_when_the_second_has_said_goodbye(book: LeaseTable) -> None:
    """The first one's goodbye takes nothing of it."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "c", at=103.0, uptime=1.0)
    assert not book.release("w", "b", 103.5)
    assert book.incarnations.conflicts == {"w"}
    assert book.release("w", "a", 104.0)

    assert (lease_of(book).incarnation, ending_of(book).reborn_at) == ("c", 102.0)


def test_a_third_is_known_when_the_second_is_silent(book: LeaseTable) -> None:
    """For a ttl; the first one's goodbye takes nothing of it."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "c", at=103.0, uptime=1.0)
    for at in (108.0, 112.0):
        says(book, "a", at=at, uptime=at)
    assert book.release("w", "a", 112.5)

    assert (lease_of(book).incarnation, ending_of(book).reborn_at) == ("c", 102.0)


def test_what_a_third_has_shown_of_its_beginning_is_kept_when_it_is_followed(book: LeaseTable) -> None:
    """It does not begin anew when the second one is silent."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "c", at=103.0, uptime=1.0)

    assert says(book, "c", at=112.0, uptime=10.0) is Heard.RESTARTED


def test_whoever_says_hello_ends_all_others(book: LeaseTable) -> None:
    """A straggler of a third one is one of the past."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "c", at=103.0, uptime=1.0)
    book.hello("w", 104.0, Heartbeat(incarnation="d", uptime=0.5), 104.0)

    for incarnation in "abc":
        assert says(book, incarnation, at=105.0, uptime=5.0) is Heard.STALE


def test_a_goodbye_leaves_those_in_conflict_that_are_heard_beside_it(book: LeaseTable) -> None:
    """Two of three live on: nothing is looked for in the name of one of them while the other is heard."""
    for at in (121.0, 124.0, 127.0, 130.0):
        says(book, "a", at=at, uptime=at)
        says(book, "b", at=at + 0.25, uptime=at + 0.25 - 100.0)
        says(book, "c", at=at + 0.5, uptime=at + 0.5 - 50.0)
    assert book.release("w", "a", 131.0)
    book.ended("w", 1, 131.1)
    says(book, "b", at=133.25, uptime=33.25)

    assert not book.arrivals


def test_what_follows_a_rival_that_is_over_says_when_the_former_was_heard(book: LeaseTable) -> None:
    """And not when the rivals were: it stands in the record of the life that ends."""
    says(book, "a", at=100.0, uptime=100.0)
    for at in range(103, 200, 3):
        says(book, "b", at=float(at), uptime=at - 102.0)
        says(book, "c", at=at + 1.0, uptime=at - 101.5)
    book.release("w", "b", 199.5)
    for at in range(202, 220, 3):
        said = says(book, "c", at=float(at), uptime=at - 102.5)
        if said is Heard.RESTARTED:
            break

    assert ending_of(book).last_beat == 100.0
