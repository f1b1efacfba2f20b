"""The book, rule by rule."""

import pytest

from liveness.group import Group
from liveness.leases import Heard, LeaseTable
from liveness.messages import Heartbeat
from tests.unit.makers import ending_of, holds_live, lapsed, lease_of, live, names

TTL = 60.0


@pytest.fixture
def book() -> LeaseTable:
    """An empty book."""
    return LeaseTable(TTL)


def test_a_lease_lapses_when_its_ttl_has_run_out_and_not_before(book: LeaseTable) -> None:
    """The deadline is the last beat plus the ttl, to the tick."""
    live(book, "w", now=1.0)

    assert lapsed(book, 10.999) == []
    assert lapsed(book, 11.0) == ["w"]


def test_a_beat_renews(book: LeaseTable) -> None:
    """Every beat begins a new ttl."""
    live(book, "w")

    assert book.beat("w", 9.0, Heartbeat()) is Heard.RENEWED
    assert lapsed(book, 18.9) == []
    assert lapsed(book, 19.0) == ["w"]


def test_a_worker_drains_for_as_long_as_its_beats_say_so(book: LeaseTable) -> None:
    """From the first one on, which may say so already."""
    book.beat("w", 0.0, Heartbeat(draining=True))
    assert lease_of(book).draining
    book.beat("w", 1.0, Heartbeat())
    assert not lease_of(book).draining
    book.beat("w", 2.0, Heartbeat(draining=True))
    assert lease_of(book).draining


def test_a_worker_that_states_no_ttl_has_the_default(book: LeaseTable) -> None:
    """Without a word of its own, a worker is believed for the default ttl."""
    live(book, "w", ttl=None)

    assert lapsed(book, TTL - 0.1) == []
    assert lapsed(book, TTL) == ["w"]


def test_a_beat_without_a_ttl_keeps_the_last_one_stated(book: LeaseTable) -> None:
    """An empty beat after one that stated a ttl is good for that ttl."""
    live(book, "w", ttl=10.0)
    book.beat("w", 5.0, Heartbeat())

    assert lapsed(book, 15.0) == ["w"]


def test_a_later_beat_never_shortens_what_an_earlier_one_promised(book: LeaseTable) -> None:
    """A shorter ttl counts only once it reaches beyond the promise in force."""
    live(book, "w", ttl=100.0)
    book.beat("w", 10.0, Heartbeat(ttl=5.0))
    book.beat("w", 20.0, Heartbeat())

    assert lapsed(book, 99.9) == []
    book.beat("w", 97.0, Heartbeat())
    assert lapsed(book, 101.9) == []
    assert lapsed(book, 102.0) == ["w"]


def test_a_longer_ttl_counts_at_once_and_is_to_be_written(book: LeaseTable) -> None:
    """What a restart needs to know is marked as changed."""
    live(book, "w", ttl=10.0)
    book.beat("w", 1.0, Heartbeat(ttl=100.0))

    assert list(book.changed) == ["w"]
    assert lapsed(book, 100.9) == []
    assert lapsed(book, 101.0) == ["w"]


def test_a_renewal_that_changes_nothing_is_not_written(book: LeaseTable) -> None:
    """Heartbeats cost the database nothing."""
    live(book, "w", ttl=10.0)
    for now in range(1, 100):
        book.beat("w", float(now), Heartbeat(incarnation=None, ttl=10.0))

    assert not book.changed
    assert not book.wanting


def test_a_ttl_of_many_digits_is_rounded_up_once(book: LeaseTable) -> None:
    """Stating it again changes nothing, so nothing is written."""
    live(book, ttl=10.0)
    book.beat("w", 1.0, Heartbeat(ttl=12.3456))
    assert lease_of(book).ttl == 12.4
    book.changed.clear()
    book.beat("w", 2.0, Heartbeat(ttl=12.3456))

    assert lease_of(book).ttl == 12.4
    assert not book.changed


def test_a_lapsed_lease_stays_until_the_verdict(book: LeaseTable) -> None:
    """It is reported once, and forgotten only when Postgres has spoken."""
    live(book, "w")
    assert lapsed(book, 10.0) == ["w"]

    assert lapsed(book, 20.0) == []
    assert list(book.endings) == ["w"]
    assert not holds_live(book, "w")
    assert book.ended("w", 1, 21.0) is None
    assert book.get("w") is None
    assert not book.endings


def test_a_beat_before_the_verdict_revives(book: LeaseTable) -> None:
    """The epoch goes on, and nothing is offered any more."""
    live(book, "w")
    book.lapse(10.0)

    assert book.beat("w", 11.0, Heartbeat()) is Heard.REVIVED
    assert not book.endings
    assert holds_live(book, "w")
    assert lapsed(book, 20.9) == []
    assert lapsed(book, 21.0) == ["w"]


def test_a_beat_while_the_verdict_is_under_way_begins_a_new_life(book: LeaseTable) -> None:
    """The epoch is over for good; the name wants another one."""
    live(book, "w", epoch=1)
    book.lapse(10.0)
    book.beat("w", 10.5, Heartbeat())

    lease = book.ended("w", 1, 11.0)

    assert lease is not None
    assert lease.epoch is None
    assert list(book.wanting) == ["w"]
    assert holds_live(book, "w")
    book.granted("w", 2)
    assert lapsed(book, 20.5) == ["w"]


def test_a_verdict_on_a_former_epoch_changes_nothing(book: LeaseTable) -> None:
    """A late answer about an epoch that is not the lease's any more is no news."""
    live(book, "w", epoch=2)

    assert book.ended("w", 1, 5.0) is None
    assert holds_live(book, "w")


def test_a_life_that_was_ended_elsewhere_goes_on_as_a_new_one(book: LeaseTable) -> None:
    """A replica that learns of the end of a living name's epoch has it granted anew."""
    live(book, "w", epoch=1)

    lease = book.ended("w", 1, 5.0)

    assert lease is not None
    assert list(book.wanting) == ["w"]
    assert lapsed(book, 10.0) == ["w"]


def test_a_spared_lease_counts_from_the_beat_that_somebody_recorded(book: LeaseTable) -> None:
    """Not from now: the promise is that beat's."""
    live(book, "w")
    live(book, "other", now=9.0)
    book.lapse(10.0)

    book.spared("w", 1, 7.0)

    assert holds_live(book, "w")
    assert lapsed(book, 16.9) == []
    assert lapsed(book, 17.0) == ["w"]
    assert lapsed(book, 19.0) == ["other"]


def test_a_restored_lease_is_owed_a_full_ttl(book: LeaseTable) -> None:
    """From the moment of the restore, with the epoch that is open."""
    book.restore("w", 5.0, ttl=10.0, epoch=7, incarnation="a")

    lease = lease_of(book)
    assert (lease.epoch, lease.incarnation, lease.last_beat) == (7, "a", None)
    assert not book.wanting
    assert lapsed(book, 14.9) == []
    assert lapsed(book, 15.0) == ["w"]


def test_a_life_that_was_heard_and_granted_is_news(book: LeaseTable) -> None:
    """Postgres has to be asked whether the name has recovered; of a life not heard there is nothing to tell."""
    book.beat("heard", 0.0, Heartbeat())
    book.restore("unheard", 0.0, 10.0)
    book.granted("heard", 1)
    book.granted("unheard", 2)

    assert list(book.changed) == ["heard"]


def test_the_first_beat_of_a_restored_lease_is_news(book: LeaseTable) -> None:
    """It may be the recovery of a worker that was given up."""
    book.restore("w", 0.0, ttl=10.0, epoch=7)
    book.beat("w", 1.0, Heartbeat())
    assert list(book.changed) == ["w"]
    book.changed.clear()
    book.beat("w", 2.0, Heartbeat())

    assert not book.changed


def test_restoring_leaves_a_lease_that_is_there(book: LeaseTable) -> None:
    """What was heard is worth more than what was stored."""
    live(book, "w", epoch=2, ttl=10.0)
    book.restore("w", 5.0, ttl=99.0, epoch=1)

    lease = lease_of(book)
    assert (lease.epoch, lease.ttl) == (2, 10.0)


def test_an_extension_does_not_bring_back_what_has_lapsed(book: LeaseTable) -> None:
    """A lapsed lease waits for its verdict all the same."""
    live(book, "w")
    book.lapse(10.0)
    book.lines.extend(11.0)

    assert list(book.endings) == ["w"]


def test_leases_can_be_gone_through_by_their_deadlines(book: LeaseTable) -> None:
    """Those that are ending first, whatever line the others stand in."""
    live(book, "ending", now=0.0, ttl=1.0)
    book.lapse(1.0)
    live(book, "third", now=1.0, ttl=30.0)
    live(book, "first", now=2.0, ttl=5.0)
    live(book, "second", now=3.0, ttl=5.0)

    assert names(list(book.soonest())) == ["ending", "first", "second", "third"]


def test_what_a_lapse_knew_is_kept_with_it(book: LeaseTable) -> None:
    """The promise that ran out, whatever the worker has stated since."""
    live(book, ttl=100.0, incarnation="a")
    book.beat("w", 50.0, Heartbeat(incarnation="a", ttl=5.0))
    book.lapse(120.0)

    ending = ending_of(book)
    assert (ending.reason, ending.at, ending.proof, ending.incarnation) == ("lapsed", 120.0, False, "a")
    assert (ending.ttl, ending.deadline, ending.last_beat) == (100.0, 100.0, 50.0)


def test_a_verdict_on_a_revived_life_leaves_its_promise(book: LeaseTable) -> None:
    """It was heard while the verdict was under way."""
    live(book)
    book.lapse(10.0)
    book.beat("w", 12.0, Heartbeat())
    book.ended("w", 1, 15.0)

    assert lapsed(book, 21.9) == []
    assert lapsed(book, 22.0) == ["w"]


@pytest.mark.parametrize("epoch", [1, 3])
def test_only_a_lapse_of_that_epoch_is_spared(book: LeaseTable, epoch: int) -> None:
    """Not one on proof, not another epoch, not a life that does not end."""
    live(book, epoch=2)
    book.spared("w", 2, 5.0)
    assert book.lines.deadline(lease_of(book)) == 10.0
    book.lapse(10.0)
    book.spared("w", epoch, 9.0)
    assert not holds_live(book, "w")
    book.release("w", None, 11.0)
    book.spared("w", 2, 9.0)

    assert not holds_live(book, "w")


def test_who_leaves_the_book_leaves_nothing(book: LeaseTable) -> None:
    """No line, no mark, no incarnation, no seat in a group."""
    group = Group("n")
    for worker in ("a", "b"):
        book.hello(worker, 0.0, Heartbeat(incarnation="1"), 0.0)
        lease_of(book, worker).group = group
        group.members += 1
    book.hello("b", 0.0, Heartbeat(incarnation="2"), 0.0)
    book.restore("c", 0.0, 10.0)
    for worker in ("a", "b", "c", "unknown"):
        book.forget(worker)

    marks = (book.wanting, book.changed, book.endings, book.unproven, book.arrivals)
    assert [list(mark) for mark in marks] == [[]] * len(marks)
    assert (len(book), group.members, lapsed(book, 1000.0)) == (0, 0, [])
    assert not book.incarnations.is_former("b", "1")
    assert not book.incarnations.claims


def test_an_epoch_that_was_granted_to_nobody_is_of_no_interest(book: LeaseTable) -> None:
    """The name may have left, or have its epoch already."""
    book.granted("nobody", 1)
    live(book, epoch=2)
    book.granted("w", 3)

    assert lease_of(book).epoch == 2


def test_a_name_of_which_nothing_is_known_is_unproven_until_it_is_heard(book: LeaseTable) -> None:
    """A life of ours that is restored is proof enough."""
    book.restore("heard", 0.0, 10.0)
    book.restore("unheard", 0.0, 10.0)
    book.restore("ours", 0.0, 10.0, epoch=1)
    book.beat("heard", 1.0, Heartbeat())

    assert book.unproven == {"unheard"}
