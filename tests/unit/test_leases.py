"""The book, rule by rule."""

import math

import pytest

from liveness.lease import rounded_ttl
from liveness.leases import Heard, LeaseTable

TTL = 60.0


@pytest.fixture
def book() -> LeaseTable:
    """An empty book."""
    return LeaseTable(TTL)


def granted(book: LeaseTable, worker: str, now: float = 0.0, epoch: int = 1, ttl: float | None = 10.0) -> None:
    """Let `worker` beat for the first time and be granted an epoch, of which Postgres knows all."""
    book.beat(worker, now, ttl=ttl)
    book.granted(worker, epoch)
    book.changed.pop(worker)


def lapsed(book: LeaseTable, now: float) -> list[str]:
    """Return the names that lapse by `now`."""
    return [lease.worker for lease in book.lapse(now)]


def test_a_lease_lapses_when_its_ttl_has_run_out_and_not_before(book: LeaseTable) -> None:
    """The deadline is the last beat plus the ttl, to the tick."""
    granted(book, "w", now=1.0)

    assert lapsed(book, 10.999) == []
    assert lapsed(book, 11.0) == ["w"]


def test_a_beat_renews(book: LeaseTable) -> None:
    """Every beat begins a new ttl."""
    granted(book, "w")

    assert book.beat("w", 9.0) is Heard.RENEWED
    assert lapsed(book, 18.9) == []
    assert lapsed(book, 19.0) == ["w"]


def test_a_worker_that_states_no_ttl_has_the_default(book: LeaseTable) -> None:
    """Without a word of its own, a worker is believed for the default ttl."""
    granted(book, "w", ttl=None)

    assert lapsed(book, TTL - 0.1) == []
    assert lapsed(book, TTL) == ["w"]


def test_a_beat_without_a_ttl_keeps_the_last_one_stated(book: LeaseTable) -> None:
    """An empty beat after one that stated a ttl is good for that ttl."""
    granted(book, "w", ttl=10.0)
    book.beat("w", 5.0)

    assert lapsed(book, 15.0) == ["w"]


def test_a_later_beat_never_shortens_what_an_earlier_one_promised(book: LeaseTable) -> None:
    """A shorter ttl counts only once it reaches beyond the promise in force."""
    granted(book, "w", ttl=100.0)
    book.beat("w", 10.0, ttl=5.0)
    book.beat("w", 20.0)

    assert lapsed(book, 99.9) == []
    book.beat("w", 97.0)
    assert lapsed(book, 101.9) == []
    assert lapsed(book, 102.0) == ["w"]


def test_a_longer_ttl_counts_at_once_and_is_to_be_written(book: LeaseTable) -> None:
    """What a restart needs to know is marked as changed."""
    granted(book, "w", ttl=10.0)
    book.beat("w", 1.0, ttl=100.0)

    assert list(book.changed) == ["w"]
    assert lapsed(book, 100.9) == []
    assert lapsed(book, 101.0) == ["w"]


def test_a_renewal_that_changes_nothing_is_not_written(book: LeaseTable) -> None:
    """Heartbeats cost the database nothing."""
    granted(book, "w", ttl=10.0)
    for now in range(1, 100):
        book.beat("w", float(now), incarnation=None, ttl=10.0)

    assert not book.changed
    assert not book.wanting


def test_lapses_come_in_the_order_of_their_deadlines(book: LeaseTable) -> None:
    """Whatever their ttls and whenever they beat."""
    granted(book, "late", now=0.0, ttl=30.0)
    granted(book, "first", now=1.0, ttl=5.0)
    granted(book, "second", now=2.0, ttl=5.0)
    granted(book, "third", now=0.0, ttl=20.0)

    assert lapsed(book, 100.0) == ["first", "second", "third", "late"]


def test_a_lapsed_lease_stays_until_the_verdict(book: LeaseTable) -> None:
    """It is reported once, and forgotten only when Postgres has spoken."""
    granted(book, "w")
    assert lapsed(book, 10.0) == ["w"]

    assert lapsed(book, 20.0) == []
    assert list(book.endings) == ["w"]
    assert not book.holds_live("w")
    assert book.ended("w", 1, 21.0) is None
    assert book.get("w") is None
    assert not book.endings


def test_a_beat_before_the_verdict_revives(book: LeaseTable) -> None:
    """The epoch goes on, and nothing is offered any more."""
    granted(book, "w")
    book.lapse(10.0)

    assert book.beat("w", 11.0) is Heard.REVIVED
    assert not book.endings
    assert book.holds_live("w")
    assert lapsed(book, 20.9) == []
    assert lapsed(book, 21.0) == ["w"]


def test_a_beat_while_the_verdict_is_under_way_begins_a_new_life(book: LeaseTable) -> None:
    """The epoch is over for good; the name wants another one."""
    granted(book, "w", epoch=1)
    book.lapse(10.0)
    book.beat("w", 10.5)

    lease = book.ended("w", 1, 11.0)

    assert lease is not None
    assert lease.epoch is None
    assert list(book.wanting) == ["w"]
    assert book.holds_live("w")
    book.granted("w", 2)
    assert lapsed(book, 20.5) == ["w"]


def test_a_verdict_on_a_former_epoch_changes_nothing(book: LeaseTable) -> None:
    """A late answer about an epoch that is not the lease's any more is no news."""
    granted(book, "w", epoch=2)

    assert book.ended("w", 1, 5.0) is None
    assert book.holds_live("w")


def test_a_life_that_was_ended_elsewhere_goes_on_as_a_new_one(book: LeaseTable) -> None:
    """A replica that learns of the end of a living name's epoch has it granted anew."""
    granted(book, "w", epoch=1)

    lease = book.ended("w", 1, 5.0)

    assert lease is not None
    assert list(book.wanting) == ["w"]
    assert lapsed(book, 10.0) == ["w"]


def test_a_spared_lease_counts_from_the_beat_that_somebody_recorded(book: LeaseTable) -> None:
    """Not from now: the promise is that beat's."""
    granted(book, "other", now=9.0)
    granted(book, "w")
    book.lapse(10.0)

    book.spared("w", 1, 7.0)

    assert book.holds_live("w")
    assert lapsed(book, 16.9) == []
    assert lapsed(book, 17.0) == ["w"]
    assert lapsed(book, 19.0) == ["other"]


def test_a_goodbye_ends_the_life_of_its_incarnation(book: LeaseTable) -> None:
    """At once, whatever is left of the lease."""
    book.beat("w", 0.0, incarnation="a", ttl=10.0)
    book.granted("w", 1)

    assert book.release("w", "a", 1.0)
    lease = book.endings["w"]
    assert lease.ending is not None
    assert (lease.ending.reason, lease.ending.proof, lease.ending.incarnation) == ("released", True, "a")


@pytest.mark.parametrize("incarnation", [None, "b"])
def test_a_goodbye_of_another_incarnation_ends_nothing(book: LeaseTable, incarnation: str | None) -> None:
    """Neither does one without incarnation end a life that has one."""
    book.beat("w", 0.0, incarnation="a", ttl=10.0)

    assert not book.release("w", incarnation, 1.0)
    assert book.holds_live("w")


def test_a_goodbye_without_incarnation_ends_a_life_without_one(book: LeaseTable) -> None:
    """A worker that publishes nothing but empty messages can say goodbye with one."""
    granted(book, "w")

    assert book.release("w", None, 1.0)
    assert not book.release("w", None, 2.0)


def test_a_beat_does_not_undo_a_proof(book: LeaseTable) -> None:
    """After a goodbye the epoch ends; the beat begins the next life, with its own incarnation."""
    book.beat("w", 0.0, incarnation="a", ttl=10.0)
    book.granted("w", 1)
    book.release("w", "a", 1.0)

    assert book.beat("w", 2.0, incarnation="b") is Heard.AFTER_PROOF
    assert list(book.endings) == ["w"]
    lease = book.ended("w", 1, 3.0)

    assert lease is not None
    assert (lease.incarnation, lease.epoch) == ("b", None)
    assert lapsed(book, 12.9) == []
    assert lapsed(book, 13.0) == ["w"]


def test_an_operators_word_ends_any_incarnation(book: LeaseTable) -> None:
    """And a name without a lease has nothing to end."""
    book.beat("w", 0.0, incarnation="a")

    assert book.end("w", 1.0, "operator")
    assert not book.end("nobody", 1.0, "operator")


def test_a_restored_lease_is_owed_a_full_ttl(book: LeaseTable) -> None:
    """From the moment of the restore, with the epoch that is open."""
    book.restore("w", 5.0, ttl=10.0, epoch=7, incarnation="a")

    lease = book.get("w")
    assert lease is not None
    assert (lease.epoch, lease.incarnation, lease.last_beat) == (7, "a", None)
    assert not book.wanting
    assert lapsed(book, 14.9) == []
    assert lapsed(book, 15.0) == ["w"]


def test_a_life_that_was_heard_and_granted_is_news(book: LeaseTable) -> None:
    """Postgres has to be asked whether the name has recovered; of a life not heard there is nothing to tell."""
    book.beat("heard", 0.0)
    book.restore("unheard", 0.0, 10.0)
    book.granted("heard", 1)
    book.granted("unheard", 2)

    assert list(book.changed) == ["heard"]


def test_the_first_beat_of_a_restored_lease_is_news(book: LeaseTable) -> None:
    """It may be the recovery of a worker that was given up."""
    book.restore("w", 0.0, ttl=10.0, epoch=7)
    book.beat("w", 1.0)
    assert list(book.changed) == ["w"]
    book.changed.clear()
    book.beat("w", 2.0)

    assert not book.changed


def test_restoring_leaves_a_lease_that_is_there(book: LeaseTable) -> None:
    """What was heard is worth more than what was stored."""
    granted(book, "w", epoch=2, ttl=10.0)
    book.restore("w", 5.0, ttl=99.0, epoch=1)

    lease = book.get("w")
    assert lease is not None
    assert (lease.epoch, lease.ttl) == (2, 10.0)


def test_an_extension_owes_everyone_a_full_ttl(book: LeaseTable) -> None:
    """Beats may have been lost before it; the order of the deadlines holds."""
    granted(book, "a", ttl=10.0)
    granted(book, "b", ttl=20.0)
    book.extend(8.0)

    assert lapsed(book, 17.9) == []
    assert lapsed(book, 18.0) == ["a"]
    assert lapsed(book, 28.0) == ["b"]


def test_an_extension_does_not_bring_back_what_has_lapsed(book: LeaseTable) -> None:
    """A lapsed lease waits for its verdict all the same."""
    granted(book, "w")
    book.lapse(10.0)
    book.extend(11.0)

    assert list(book.endings) == ["w"]


def test_a_new_incarnation_becomes_the_known_one(book: LeaseTable) -> None:
    """The life goes on, nothing is taken, and Postgres is to be told."""
    book.beat("w", 0.0, incarnation="a")
    book.granted("w", 1)
    book.changed.clear()
    book.beat("w", 1.0, incarnation="b")

    lease = book.get("w")
    assert lease is not None
    assert (lease.incarnation, lease.epoch) == ("b", 1)
    assert list(book.changed) == ["w"]


def test_the_next_deadline_is_that_of_the_first_lease(book: LeaseTable) -> None:
    """Infinite for an empty book."""
    assert book.next_deadline() == math.inf
    granted(book, "a", now=3.0, ttl=10.0)
    granted(book, "b", now=0.0, ttl=20.0)

    assert book.next_deadline() == 13.0


def test_leases_can_be_gone_through_by_their_deadlines(book: LeaseTable) -> None:
    """Those that are ending first, whatever line the others stand in."""
    granted(book, "ending", now=0.0, ttl=1.0)
    book.lapse(1.0)
    granted(book, "third", now=1.0, ttl=30.0)
    granted(book, "first", now=2.0, ttl=5.0)
    granted(book, "second", now=3.0, ttl=5.0)

    assert [lease.worker for lease in book.soonest()] == ["ending", "first", "second", "third"]


def test_who_was_heard_since_a_moment(book: LeaseTable) -> None:
    """Those with a shortened ttl included, restored ones that were not heard excluded."""
    granted(book, "old", now=0.0)
    granted(book, "shortened", now=0.0, ttl=100.0)
    book.restore("unheard", 6.0, ttl=10.0)
    granted(book, "new", now=6.0)
    book.beat("shortened", 7.0, ttl=5.0)

    assert sorted(lease.worker for lease in book.heard_since(5.0)) == ["new", "shortened"]


def test_a_look_that_finds_nothing_costs_the_same_at_any_size() -> None:
    """The number of leases looked at follows the number of distinct ttls, not of leases."""
    looked_at = []
    for size in (10, 10_000):
        book = LeaseTable(TTL)
        for number in range(size):
            book.beat(f"w{number}", 0.0, ttl=10.0)
        calls = 0
        deadline = book.deadline

        def counting(lease: object, deadline: object = deadline) -> float:
            nonlocal calls
            calls += 1
            return deadline(lease)  # type: ignore[operator,no-any-return]

        book.deadline = counting  # type: ignore[method-assign]
        assert book.lapse(5.0) == []
        looked_at.append(calls)

    assert looked_at == [1, 1]


def test_lines_of_ttls_that_nobody_has_any_more_are_dropped(book: LeaseTable) -> None:
    """A worker that states another ttl with every beat leaves no trail."""
    granted(book, "w", ttl=1.0)
    for ttl in range(2, 500):
        book.beat("w", float(ttl) * 1000, ttl=float(ttl))
        book.lapse(float(ttl) * 1000)

    assert repr(book) == "<LeaseTable 1 leases, 0 wanting, 0 ending, 1 lines>"


@pytest.mark.parametrize(
    ("stated", "counted"), [(2.0, 2.0), (0.3, 0.3), (2.3, 2.3), (10.001, 10.1), (12.34, 12.4), (3599.0, 3600.0)]
)
def test_a_ttl_is_rounded_up_to_three_digits(stated: float, counted: float) -> None:
    """Never down: a promise is not made shorter."""
    assert rounded_ttl(stated) == counted
