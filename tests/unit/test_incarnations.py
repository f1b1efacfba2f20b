"""Which process speaks under a name: the clauses of `incarnations`, seen through the book."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveness.beginnings import AGREED_WITHIN, APART, NEWEST_THIRDS, THIRDS_REMEMBERED
from liveness.formers import FORMERS_REMEMBERED, NEWEST_FORMERS
from liveness.incarnations import Incarnations
from liveness.leases import Arrived, Heard, LeaseTable
from liveness.messages import Heartbeat
from tests.unit.makers import ending_of, holds_live, lapsed, lease_of, live, restored, says

TTL = 10.0


@pytest.fixture
def book() -> LeaseTable:
    """A book in which `w` lives as "a" under epoch 1."""
    book = LeaseTable(TTL)
    live(book, incarnation="a")
    return book


def restart(book: LeaseTable, incarnation: str, *, begun: float, epoch: int) -> None:
    """Let `w` be a new incarnation by two beats, and let Postgres give its verdict and the next epoch."""
    says(book, incarnation, at=begun + 1.0, uptime=1.0)
    assert says(book, incarnation, at=begun + 4.0, uptime=4.0) is Heard.RESTARTED
    book.ended("w", epoch - 1, begun + 5.0)
    book.granted("w", epoch)


# When a process began.


def test_two_beats_that_agree_end_the_former_life(book: LeaseTable) -> None:
    """What was touched before the least beginning seen is the former one's; the name lives on."""
    assert says(book, "b", at=103.25, uptime=3.0) is Heard.RENEWED
    assert not book.endings
    assert says(book, "b", at=106.0, uptime=6.0) is Heard.RESTARTED

    ending = ending_of(book)
    assert (ending.reason, ending.proof, ending.incarnation, ending.reborn_at) == ("restarted", True, "a", 100.0)
    assert book.ended("w", 1, 107.0) is lease_of(book)
    assert (lease_of(book).incarnation, list(book.wanting), holds_live(book, "w")) == ("b", ["w"], True)
    # It is settled: nothing is looked for a second time.
    assert says(book, "b", at=109.0, uptime=9.0) is Heard.RENEWED
    assert not book.arrivals
    assert not book.incarnations.claims


def test_the_beginning_is_the_least_that_any_beat_shows(book: LeaseTable) -> None:
    """Of beats on both sides of the restart."""
    for at, uptime in [(101.5, 1.0), (104.0, 4.0), (107.75, 7.0)]:
        says(book, "b", at=at, uptime=uptime)
    assert ending_of(book).reborn_at == 100.0

    says(book, "b", at=109.5, uptime=10.0)
    assert ending_of(book).reborn_at == 99.5


def test_beats_agree_to_a_second_and_not_beyond(book: LeaseTable) -> None:
    """The bound itself is allowed."""
    says(book, "b", at=103.0 + AGREED_WITHIN + 0.25, uptime=3.0)
    assert says(book, "b", at=106.0, uptime=6.0) is Heard.RENEWED
    assert says(book, "b", at=109.0 + AGREED_WITHIN + 0.25, uptime=9.0) is Heard.RENEWED
    assert says(book, "b", at=112.0 + AGREED_WITHIN, uptime=12.0) is Heard.RESTARTED
    assert ending_of(book).reborn_at == 100.0


def test_beats_that_lie_close_together_do_not_confirm_each_other(book: LeaseTable) -> None:
    """What delayed the one may have delayed the other."""
    says(book, "b", at=101.0, uptime=1.0)
    assert says(book, "b", at=101.0 + APART, uptime=1.0 + APART) is Heard.RENEWED
    assert says(book, "b", at=101.25 + APART, uptime=1.25 + APART) is Heard.RESTARTED


def test_a_beat_that_comes_twice_does_not_confirm_itself(book: LeaseTable) -> None:
    """A worker whose uptime stands still is never believed."""
    for at in range(100, 110):
        assert says(book, "b", at=float(at), uptime=1.0) is Heard.RENEWED

    assert not book.endings


def test_a_first_beat_that_was_delivered_late_does_not_move_the_beginning(book: LeaseTable) -> None:
    """It waits for one that agrees with the earliest."""
    says(book, "b", at=106.0, uptime=1.0)
    assert says(book, "b", at=106.5, uptime=6.5) is Heard.RENEWED
    assert says(book, "b", at=109.0, uptime=9.0) is Heard.RESTARTED
    assert ending_of(book).reborn_at == 100.0


def test_a_second_beat_that_was_delivered_late_does_not_move_the_beginning(book: LeaseTable) -> None:
    """It agrees with nobody."""
    says(book, "b", at=101.0, uptime=1.0)
    assert says(book, "b", at=109.0, uptime=4.0) is Heard.RENEWED
    assert says(book, "b", at=109.25, uptime=9.25) is Heard.RESTARTED
    assert ending_of(book).reborn_at == 100.0


def test_a_socketful_that_comes_at_once_does_not_move_the_beginning(book: LeaseTable) -> None:
    """Of beats that waited together, the beginnings differ by as much as the beats do."""
    for uptime in (1.0, 2.0, 3.0, 3.5, 4.5, 5.5, 6.5, 7.5):
        assert says(book, "b", at=110.0, uptime=uptime) is Heard.RENEWED
    assert says(book, "b", at=111.0, uptime=11.0) is Heard.RENEWED
    assert says(book, "b", at=114.0, uptime=14.0) is Heard.RESTARTED
    assert ending_of(book).reborn_at == 100.0


@given(
    intervals=st.lists(st.integers(1, 24), min_size=2, max_size=12),
    stall=st.tuples(st.integers(0, 100), st.integers(0, 200)),
    jitter=st.lists(st.integers(0, 7), min_size=12, max_size=12),
)
def test_one_stall_never_moves_a_beginning(intervals: list[int], stall: tuple[int, int], jitter: list[int]) -> None:
    """Whatever waits in it comes at its end, in order; the rest within a second. In eighths of a second."""
    book = LeaseTable(1000.0)
    live(book, incarnation="a", ttl=None)
    begun, uptime, arrival = 100 * 8, 0, 0
    for interval, late in zip(intervals, jitter, strict=False):
        uptime += interval
        sent = begun + uptime
        from_, until = begun + stall[0], begun + stall[0] + stall[1]
        arrival = max(arrival, until if from_ <= sent < until else sent + late)
        says(book, "b", at=arrival / 8, uptime=uptime / 8)

    if book.endings:
        reborn_at = ending_of(book).reborn_at
        assert reborn_at is not None
        assert 100.0 <= reborn_at <= 100.0 + AGREED_WITHIN


def said(book: LeaseTable, *, uptime: float, after: float, until: float) -> Heard:
    """Let "b" beat, accepted by NATS not before `after` and read at `until`."""
    return book.beat("w", until, Heartbeat(incarnation="b", uptime=uptime), until, Arrived(until, after, until))


def test_a_slowness_of_ours_does_not_make_a_beginning_look_later(book: LeaseTable) -> None:
    """A beat counts from when NATS may have accepted it, not from when we read it."""
    said(book, uptime=3.0, after=103.0, until=103.75)
    assert said(book, uptime=6.0, after=106.0, until=106.75) is Heard.RESTARTED

    assert ending_of(book).reborn_at == 100.0


def test_beats_agree_by_when_we_read_them(book: LeaseTable) -> None:
    """However far back NATS may have accepted them: that says nothing of how long they waited."""
    said(book, uptime=3.0, after=103.0, until=103.0)
    assert said(book, uptime=6.0, after=106.0, until=106.0 + AGREED_WITHIN + 0.25) is Heard.RENEWED
    assert said(book, uptime=9.0, after=109.0, until=109.0) is Heard.RESTARTED


def test_a_beat_that_was_late_does_not_agree_with_one_that_we_read_as_late(book: LeaseTable) -> None:
    """It waited in a socket before an echo; the other one may have been accepted long before we read it."""
    said(book, uptime=1.0, after=103.75, until=103.75)
    assert said(book, uptime=8.5, after=108.5, until=111.5) is Heard.RENEWED
    said(book, uptime=17.0, after=117.0, until=117.25)
    assert said(book, uptime=25.5, after=125.5, until=125.75) is Heard.RESTARTED

    assert ending_of(book).reborn_at == 100.0


def test_a_beat_whose_arrival_is_hardly_known_does_not_make_a_beginning_look_earlier(book: LeaseTable) -> None:
    """We stood still, and read what had waited: the next two show the beginning. What is older goes back."""
    said(book, uptime=3.0, after=80.0, until=103.0)
    said(book, uptime=6.0, after=106.0 - AGREED_WITHIN, until=106.0)
    said(book, uptime=9.0, after=109.0 - AGREED_WITHIN, until=109.0)

    assert ending_of(book).reborn_at == 100.0 - AGREED_WITHIN


def test_where_no_arrival_is_better_known_the_latest_of_what_is_known_counts(book: LeaseTable) -> None:
    """None is later than the beginning, so the new process keeps what it touched; a better one has a ttl to come."""
    said(book, uptime=3.0, after=101.0, until=103.0)
    assert said(book, uptime=6.0, after=104.5, until=106.0) is Heard.RENEWED
    assert said(book, uptime=12.875, after=111.0, until=112.875) is Heard.RENEWED
    assert said(book, uptime=13.0, after=111.5, until=113.0) is Heard.RESTARTED

    assert ending_of(book).reborn_at == 98.5


def test_a_beat_without_an_uptime_takes_nothing(book: LeaseTable) -> None:
    """The life goes on under the new name, Postgres is to be told, and the caller to report it."""
    assert says(book, "b", at=100.0, uptime=None) is Heard.ADOPTED
    assert says(book, "b", at=105.0, uptime=None) is Heard.RENEWED

    assert (lease_of(book).incarnation, lease_of(book).epoch, list(book.changed)) == ("b", 1, ["w"])
    assert not book.endings
    assert not book.arrivals


def test_who_adopts_a_name_and_leaves_gives_it_back_to_one_that_was_heard_a_moment_ago(book: LeaseTable) -> None:
    """That one may live, and nobody can say whose a row is; a ttl tells."""
    says(book, "a", at=99.0, uptime=99.0)
    says(book, "b", at=100.0, uptime=None)

    assert not book.release("w", "b", 101.0)
    assert (lease_of(book).incarnation, lease_of(book).ending, list(book.changed)) == ("a", None, ["w"])
    assert says(book, "b", at=102.0, uptime=None) is Heard.STALE
    assert says(book, "a", at=103.0, uptime=103.0) is Heard.RENEWED
    assert lapsed(book, 112.9) == []
    assert lapsed(book, 113.0) == ["w"]


def test_who_gets_its_name_back_before_it_was_believed_is_looked_for_still(book: LeaseTable) -> None:
    """The one that adopted the name was the former one, and its last beat came late: what it held has to go back."""
    book.forget("w")
    says(book, "b", at=103.0, uptime=3.0)
    says(book, "a", at=103.5, uptime=None)
    assert not book.release("w", "a", 104.0)
    says(book, "b", at=106.0, uptime=6.0)
    says(book, "b", at=109.0, uptime=9.0)

    assert (book.arrivals["w"].incarnation, book.arrivals["w"].begun) == ("b", 100.0)


def test_who_is_heard_without_incarnation_is_a_rival_of_the_next_claim_too(book: LeaseTable) -> None:
    """The process that was claimed beside both is over; the one without a name was heard since this one began."""
    book.forget("w")
    says(book, "b", at=106.0, uptime=6.0)
    says(book, "c", at=107.0, uptime=1.0)
    says(book, "b", at=108.0, uptime=8.0)
    says(book, "b", at=112.0, uptime=12.0)
    book.beat("w", 115.0, Heartbeat(), 115.0)
    says(book, "b", at=117.0, uptime=17.0)
    says(book, "b", at=121.0, uptime=21.0)
    says(book, "b", at=124.9, uptime=24.9)
    assert not book.arrivals
    says(book, "b", at=128.0, uptime=28.0)

    assert book.arrivals["w"].incarnation == "b"


def test_who_is_heard_without_incarnation_outlives_the_one_that_the_lease_bears(book: LeaseTable) -> None:
    """The name goes to the one that is claimed, and beside that the nameless one is a rival still."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "a", at=102.0, uptime=102.0)
    says(book, "b", at=104.0, uptime=4.0)
    book.beat("w", 105.0, Heartbeat(), 105.0)
    assert book.release("w", "a", 106.0)
    book.ended("w", 1, 106.0)
    book.granted("w", 2)
    says(book, "b", at=107.0, uptime=7.0)
    says(book, "b", at=114.9, uptime=14.9)
    assert not book.arrivals
    says(book, "b", at=116.0, uptime=16.0)

    assert book.arrivals["w"].incarnation == "b"


def test_a_beat_that_comes_late_hides_nobody_who_was_heard_since_its_process_began(book: LeaseTable) -> None:
    """A third process takes the place of a second one that is over, by a beat that waited longer than a rival's."""
    says(book, "b", at=101.0, uptime=1.0)
    book.beat("w", 102.0, Heartbeat(), 102.0)
    says(book, "b", at=109.0, uptime=9.0)
    says(book, "c", at=113.0, uptime=1.0)
    says(book, "c", at=115.5, uptime=3.5)
    book.beat("w", 117.0, Heartbeat(), 117.0)

    assert says(book, "c", at=124.0, uptime=5.0) is Heard.RENEWED
    assert not book.endings
    # The nameless one is over as well by now.
    assert says(book, "c", at=128.0, uptime=16.0) is Heard.RESTARTED


def test_what_is_known_of_a_beginning_to_a_second_outlives_a_dispute(book: LeaseTable) -> None:
    """The former process says another hello, more than a ttl older: what is claimed beside it is not over by that."""
    said(book, uptime=1.0, after=101.0, until=101.25)
    assert said(book, uptime=4.0, after=104.0, until=104.25) is Heard.RESTARTED
    book.reinstate("w", 105.0)
    said(book, uptime=7.0, after=105.0, until=107.25)
    book.hello("w", 108.0, Heartbeat(incarnation="a", uptime=18.5), 108.0)

    assert book.incarnations.claims["w"].incarnation == "b"
    assert says(book, "b", at=110.0, uptime=10.0) is not Heard.STALE


def test_a_name_that_went_back_already_is_not_given_back(book: LeaseTable) -> None:
    """Postgres has said who bears it, and that one's goodbye ends its life."""
    says(book, "a", at=99.0, uptime=99.0)
    says(book, "b", at=100.0, uptime=None)
    book.ended("w", 1, 100.0)
    book.learn("w", 100.0, 10.0, 2, "a", None)

    assert book.release("w", "a", 101.0)


def test_who_adopts_a_name_that_was_silent_for_a_ttl_ends_with_its_goodbye(book: LeaseTable) -> None:
    """So does one beside which another was heard since, as its successor."""
    says(book, "a", at=95.0, uptime=95.0)
    says(book, "b", at=100.0, uptime=None)
    assert book.release("w", "b", 105.0)

    assert ending_of(book).incarnation == "b"


def test_a_beat_that_names_no_incarnation_is_the_names() -> None:
    """Where one process is known, it says nothing about any other."""
    book = LeaseTable(TTL)
    restored(book, "w", incarnation="a")
    assert book.beat("w", 5.0, Heartbeat(uptime=1.0), 5.0) is Heard.RENEWED

    assert lease_of(book).incarnation == "a"
    assert not book.incarnations.claims
    assert lapsed(book, 15.0) == ["w"]


@pytest.mark.parametrize("known", [True, False])
def test_of_a_name_without_a_known_process_the_beginning_is_looked_up(*, known: bool) -> None:
    """What it held before this process began, only the database knows; that is asked once two beats agree."""
    book = LeaseTable(TTL)
    if known:
        restored(book, "w")
    says(book, "b", at=101.0, uptime=1.0)
    assert not book.arrivals
    says(book, "b", at=104.25, uptime=4.0)

    arrival = book.arrivals["w"]
    assert (arrival.incarnation, arrival.begun) == ("b", 100.0)
    assert not book.endings
    book.arrived("w", "a")
    assert list(book.arrivals) == ["w"]
    book.arrived("w", "b")
    assert not book.arrivals
    assert says(book, "b", at=110.0, uptime=10.0) is Heard.RENEWED
    assert not book.arrivals


def test_of_a_restored_life_nothing_is_looked_up(book: LeaseTable) -> None:
    """Its process may have begun long ago, and its clock have drifted since from the database's."""
    restored(book, "x", incarnation="b")
    for at in (101.0, 104.25, 107.0):
        says(book, "b", at=at, uptime=at - 100.0, worker="x")

    assert not book.arrivals
    assert not book.endings


def test_a_hello_of_a_restored_life_is_a_beat_like_others(book: LeaseTable) -> None:
    """It says it on a new connection, and Postgres knows its process."""
    restored(book, "x", incarnation="b")
    assert book.hello("x", 101.0, Heartbeat(incarnation="b", uptime=1.0), 101.0) is Heard.RENEWED

    assert not book.arrivals


# Former incarnations.


@pytest.mark.parametrize("uptime", [None, 3.0])
def test_a_beat_of_a_former_incarnation_renews_nothing(book: LeaseTable, uptime: float | None) -> None:
    """Before the verdict and after it; the life that ended under it is known."""
    says(book, "b", at=101.0, uptime=1.0)
    says(book, "b", at=104.0, uptime=4.0)
    assert says(book, "a", at=105.0, uptime=uptime) is Heard.STALE
    book.ended("w", 1, 106.0)
    assert says(book, "a", at=107.0, uptime=uptime) is Heard.STALE

    assert book.incarnations.epoch_of("w", "a") == 1
    assert lease_of(book).incarnation == "b"
    assert lapsed(book, 116.0) == ["w"]
    assert says(book, "a", at=117.0, uptime=uptime) is Heard.STALE
    assert list(book.endings) == ["w"]


def test_a_former_incarnation_that_nobody_remembers_lives_again(book: LeaseTable) -> None:
    """A name that left the book comes back as whoever it is."""
    restart(book, "b", begun=100.0, epoch=2)
    book.lapse(115.0)
    book.ended("w", 2, 116.0)

    assert says(book, "a", at=117.0, uptime=None) is Heard.STARTED


def test_the_newest_former_incarnations_are_remembered() -> None:
    """A worker that restarts for ever leaves no endless trail."""
    lives = Incarnations()
    for number in range(FORMERS_REMEMBERED + 1):
        lives.replaced("w", f"{number}", number)
    lives.replaced("w", "1", 100)
    lives.replaced("w", "new", None)

    remembered = [number for number in range(FORMERS_REMEMBERED + 1) if lives.is_former("w", f"{number}")]
    assert remembered == [1, *range(3, FORMERS_REMEMBERED + 1)]
    assert (lives.epoch_of("w", "1"), lives.epoch_of("w", "new"), lives.epoch_of("w", "0")) == (100, None, None)
    assert not lives.is_former("w", None)
    assert not lives.is_former("other", "1")


def test_of_many_names_only_the_newest_former_incarnations_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who invents names fills no memory with them, and makes nobody forget the newest; who leaves makes room."""
    monkeypatch.setattr("liveness.formers.ALL_FORMERS_REMEMBERED", 10)
    lives = Incarnations()

    def remembered(worker: str) -> int:
        for number in range(FORMERS_REMEMBERED):
            # Whoever is replaced twice, or lives on and is replaced again, counts once.
            lives.replaced(worker, f"{number}", number)
            lives.lives_on(worker, f"{number}")
            lives.replaced(worker, f"{number}", number)
            lives.replaced(worker, f"{number}", number)
        return sum(lives.is_former(worker, f"{number}") for number in range(FORMERS_REMEMBERED))

    assert [remembered(worker) for worker in ("a", "b", "c")] == [FORMERS_REMEMBERED, NEWEST_FORMERS, NEWEST_FORMERS]
    assert lives.is_former("c", f"{FORMERS_REMEMBERED - 1}")
    for worker in ("a", "b", "c"):
        lives.forget(worker, None)
    assert [remembered(worker) for worker in ("d", "e")] == [FORMERS_REMEMBERED, NEWEST_FORMERS]


def test_of_many_names_only_the_newest_that_beat_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the two that are followed; and nothing is taken from any of them."""
    monkeypatch.setattr("liveness.beginnings.CLAIMS_MANY", 1)
    book = LeaseTable(TTL)
    for worker, thirds in (("a", THIRDS_REMEMBERED), ("b", NEWEST_THIRDS)):
        for number in range(THIRDS_REMEMBERED + 3):
            book.beat(worker, 1.0, Heartbeat(incarnation=f"{number}", uptime=100.0 + number), arrival=200.0)
        assert len(book.incarnations.claims[worker].thirds) == thirds
    assert not book.endings


def test_former_incarnations_that_the_database_knows_are_stale(book: LeaseTable) -> None:
    """After a restart of the service."""
    book.incarnations.restore([("w", "old", 0)])

    assert says(book, "old", at=1.0, uptime=100.0) is Heard.STALE
    assert book.incarnations.epoch_of("w", "old") == 0


def test_a_former_incarnation_of_a_life_without_one_is_stale() -> None:
    """After a restart of the service, of a name whose open epoch names none."""
    book = LeaseTable(TTL)
    restored(book, "w")
    book.incarnations.restore([("w", "old", 0)])

    assert says(book, "old", at=1.0, uptime=100.0) is Heard.STALE
    assert lease_of(book).incarnation is None


def test_the_incarnation_that_lives_is_never_stale(book: LeaseTable) -> None:
    """Not even if one of that name was replaced once, and came back when the name had left the book."""
    book.incarnations.restore([("w", "a", 0)])
    says(book, "b", at=1.0, uptime=1.0)

    assert says(book, "a", at=2.0, uptime=100.0) is not Heard.STALE
    assert book.hello("w", 3.0, Heartbeat(incarnation="a"), 3.0) is not Heard.STALE


def test_former_incarnations_of_names_without_a_lease_can_be_forgotten(book: LeaseTable) -> None:
    """Nothing else frees those of a name that has none."""
    book.incarnations.restore([("gone", "old", 0), ("w", "old", 0)])
    book.incarnations.tidy(book.get)

    assert book.incarnations.is_former("w", "old")
    assert not book.incarnations.is_former("gone", "old")


def test_two_beats_agree_when_they_lie_apart_whatever_came_between(book: LeaseTable) -> None:
    """Each one that is read a little sooner than those before it must not make the next ones wait anew."""
    for tenths in range(1, 21):
        at = 100.0 + tenths / 10
        arrived = Arrived(at, at - 0.02 + tenths / 10_000, at - 90.0)
        book.beat("w", at, Heartbeat(incarnation="b", uptime=tenths / 10), at, arrived)
    at = 102.125
    said = book.beat("w", at, Heartbeat(incarnation="b", uptime=2.125), at, Arrived(at, at - 0.01, at - 90.0))

    assert said is Heard.RESTARTED


def test_a_beginning_is_known_to_a_second_when_two_beats_that_show_it_lie_apart(book: LeaseTable) -> None:
    """The first one came behind a gap; each that is read a little sooner must not make the next ones wait anew."""

    def b_is_heard(uptime: float, not_before: float) -> Heard:
        at = 100.0 + uptime
        return book.beat("w", at, Heartbeat(incarnation="b", uptime=uptime), at, Arrived(at, not_before, at - 90.0))

    b_is_heard(0.0, 96.0)
    for tenths in range(1, 21):
        assert b_is_heard(tenths / 10, 99.98 + tenths / 10 + tenths / 10_000) is Heard.RENEWED

    assert b_is_heard(2.125, 102.1) is Heard.RESTARTED
    assert ending_of(book).reborn_at == pytest.approx(99.975)


def test_a_third_incarnation_ends_the_second(book: LeaseTable) -> None:
    """Each in its turn."""
    restart(book, "b", begun=100.0, epoch=2)
    restart(book, "c", begun=200.0, epoch=3)

    assert (lease_of(book).incarnation, lease_of(book).epoch) == ("c", 3)
    assert [pair for pair in pairwise("abc") if book.incarnations.is_former("w", pair[0])] == [("a", "b"), ("b", "c")]
    assert says(book, "a", at=210.0, uptime=None) is says(book, "b", at=210.0, uptime=None) is Heard.STALE


def test_a_beginning_is_never_later_than_a_beat_came(book: LeaseTable) -> None:
    """Beats that waited behind a fresh echo overstate it, and the one in time is known less exactly."""

    def b_is_heard(at: float, uptime: float, not_before: float) -> Heard:
        return book.beat("w", at, Heartbeat(incarnation="b", uptime=uptime), at, Arrived(at, not_before, at - 50.0))

    b_is_heard(109.0, 9.0, 107.0)
    b_is_heard(112.75, 12.0, 112.5)
    assert b_is_heard(115.75, 15.0, 115.5) is Heard.RESTARTED

    assert ending_of(book).reborn_at == 100.0


def test_what_was_taken_by_a_beginning_that_was_roughly_known_is_looked_for_once_more(book: LeaseTable) -> None:
    """What the former process touched between that and the beginning was spared."""
    said(book, uptime=3.0, after=90.0, until=103.0)
    said(book, uptime=6.0, after=91.0, until=106.0)
    assert said(book, uptime=13.0, after=92.0, until=113.0) is Heard.RESTARTED
    assert ending_of(book).reborn_at == 85.0
    book.ended("w", 1, 114.0)
    book.granted("w", 2)
    assert said(book, uptime=15.0, after=92.0, until=115.0) is Heard.RENEWED
    assert not book.arrivals
    said(book, uptime=18.0, after=118.0, until=118.0)
    said(book, uptime=21.0, after=121.0, until=121.0)

    assert (book.arrivals["w"].incarnation, book.arrivals["w"].begun) == ("b", 100.0)
    assert not book.incarnations.claims


def test_what_a_rough_beginning_spared_is_looked_for_when_a_better_one_is_known(book: LeaseTable) -> None:
    """Replicas that stand still again and again never know one to a second, and what was spared would stay."""
    said(book, uptime=3.0, after=50.0, until=103.0)
    assert said(book, uptime=13.0, after=50.0, until=113.0) is Heard.RESTARTED
    assert ending_of(book).reborn_at == 37.0
    book.ended("w", 1, 114.0)
    book.granted("w", 2)
    # Not for less than beats differ by.
    said(book, uptime=15.0, after=37.0 + 15.0 + AGREED_WITHIN, until=115.0)
    assert not book.arrivals
    said(book, uptime=25.0, after=118.0, until=125.0)
    said(book, uptime=28.0, after=122.0, until=128.0)

    assert (book.arrivals["w"].incarnation, book.arrivals["w"].begun) == ("b", 93.0)
    assert book.incarnations.claims["w"].acted_by == 93.0


def test_what_a_look_up_by_a_rough_beginning_spared_is_looked_for_again() -> None:
    """Its former life was not known here; what is found does not make its own beginning any better known."""
    book = LeaseTable(TTL)
    said(book, uptime=3.0, after=50.0, until=103.0)
    said(book, uptime=13.0, after=50.0, until=113.0)
    assert book.arrivals["w"].begun == 37.0
    book.restart("w", 113.5, book.arrivals["w"], former=None)
    book.granted("w", 1)
    book.ended("w", 1, 114.0)
    book.granted("w", 2)
    assert not book.arrivals
    said(book, uptime=25.0, after=118.0, until=125.0)
    said(book, uptime=28.0, after=122.0, until=128.0)

    assert (book.arrivals["w"].incarnation, book.arrivals["w"].begun) == ("b", 93.0)


def test_a_former_process_that_was_never_heard_has_no_last_beat() -> None:
    """Those that told of its end were the new one's."""
    book = LeaseTable(TTL)
    book.restore("w", 0.0, TTL, 1, "a")
    says(book, "b", at=105.0, uptime=5.0)
    assert says(book, "b", at=108.0, uptime=8.0) is Heard.RESTARTED

    assert (ending_of(book).incarnation, ending_of(book).last_beat) == ("a", None)


@pytest.mark.parametrize("lives", [True, False])
def test_a_process_from_before_the_start_waits_for_one_that_was_restored(*, lives: bool) -> None:
    """That may live and be the newer one: only a ttl of listening tells. One that began since is believed as ever."""
    book = LeaseTable(TTL)
    restored(book, "w", "other", incarnation="a")
    assert says(book, "b", at=1.0, uptime=16.0) is Heard.RENEWED
    assert says(book, "b", at=4.0, uptime=19.0) is Heard.RENEWED
    assert says(book, "b", at=8.0, uptime=3.0, worker="other") is Heard.RENEWED
    assert says(book, "b", at=11.0, uptime=6.0, worker="other") is Heard.RESTARTED

    if lives:
        assert says(book, "a", at=9.0, uptime=15.0) is Heard.CONFLICT
    heard = says(book, "b", at=12.0, uptime=27.0)

    assert heard is (Heard.RENEWED if lives else Heard.RESTARTED)
