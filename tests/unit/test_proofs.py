"""Lives that end on proof: a goodbye, a certificate, an operator's word; and what comes after it."""

import pytest

from liveness.lease import Proof
from liveness.leases import Arrived, Heard, LeaseTable
from liveness.messages import Heartbeat
from tests.unit.makers import ending_of, holds_live, lapsed, lease_of, live

TTL = 60.0


@pytest.fixture
def book() -> LeaseTable:
    """An empty book."""
    return LeaseTable(TTL)


def test_a_goodbye_ends_the_life_of_its_incarnation(book: LeaseTable) -> None:
    """At once, whatever is left of the lease."""
    book.beat("w", 0.0, Heartbeat(incarnation="a", ttl=10.0))
    book.granted("w", 1)

    assert book.release("w", "a", 1.0)
    ending = ending_of(book)
    assert (ending.reason, ending.proof, ending.incarnation) == ("released", True, "a")


@pytest.mark.parametrize("incarnation", [None, "b"])
def test_a_goodbye_of_another_incarnation_ends_nothing(book: LeaseTable, incarnation: str | None) -> None:
    """Neither does one without incarnation end a life that has one."""
    book.beat("w", 0.0, Heartbeat(incarnation="a", ttl=10.0))

    assert not book.release("w", incarnation, 1.0)
    assert holds_live(book, "w")


def test_a_goodbye_without_incarnation_ends_a_life_without_one(book: LeaseTable) -> None:
    """A worker that publishes nothing but empty messages can say goodbye with one."""
    live(book, "w")

    assert book.release("w", None, 1.0)
    assert not book.release("w", None, 2.0)


def test_a_beat_does_not_undo_a_proof(book: LeaseTable) -> None:
    """After a goodbye the epoch ends; the beat begins the next life, with its own incarnation."""
    book.beat("w", 0.0, Heartbeat(incarnation="a", ttl=10.0))
    book.granted("w", 1)
    book.release("w", "a", 1.0)

    assert book.beat("w", 2.0, Heartbeat(incarnation="b")) is Heard.AFTER_PROOF
    assert list(book.endings) == ["w"]
    lease = book.ended("w", 1, 3.0)

    assert lease is not None
    assert (lease.incarnation, lease.epoch) == ("b", None)
    assert lapsed(book, 12.9) == []
    assert lapsed(book, 13.0) == ["w"]


def test_an_operators_word_ends_any_incarnation(book: LeaseTable) -> None:
    """And a name without a lease has nothing to end."""
    book.beat("w", 0.0, Heartbeat(incarnation="a"))

    assert book.end("w", 1.0, Proof("operator"))
    assert not book.end("nobody", 1.0, Proof("operator"))


def test_a_proof_ends_a_lapsed_life_too(book: LeaseTable) -> None:
    """Its reason is the proof then, and a beat does not revive it any more."""
    live(book)
    book.lapse(10.0)

    assert book.release("w", None, 11.0, Proof("died", {"signal": 9}))
    assert (ending_of(book).reason, ending_of(book).details) == ("died", {"signal": 9})
    assert book.beat("w", 12.0, Heartbeat()) is Heard.AFTER_PROOF
    assert not holds_live(book, "w")


def test_what_the_next_life_has_touched_is_kept_from_the_proof_on_the_former_one(book: LeaseTable) -> None:
    """From its beginning on, the earliest that any of its beats shows."""
    live(book, incarnation="a")
    book.release("w", "a", 1.0)
    assert ending_of(book).reborn_at is None

    book.beat("w", 5.0, Heartbeat(incarnation="b", uptime=1.0), 105.0)
    assert ending_of(book).reborn_at == 104.0
    book.beat("w", 8.0, Heartbeat(incarnation="b", uptime=5.0), 108.0)
    assert ending_of(book).reborn_at == 103.0
    book.beat("w", 9.0, Heartbeat(incarnation="b", uptime=1.0), 109.0)
    assert ending_of(book).reborn_at == 103.0


def test_a_last_beat_that_a_certificate_overtook_does_not_keep_the_work(book: LeaseTable) -> None:
    """The supervisor speaks by another connection. The process that is over is as old as its work: that goes back."""
    live(book, incarnation="a")
    book.release("w", "a", 100.0, Proof("died"))
    book.beat("w", 100.5, Heartbeat(incarnation="a", uptime=99.0), 1100.5)

    reborn_at = ending_of(book).reborn_at
    assert reborn_at is None or reborn_at >= 1100.5


def test_the_life_after_a_proof_is_that_of_the_incarnation_that_beats(book: LeaseTable) -> None:
    """Its own goodbye ends it, and none of its beats restarts it."""
    live(book, incarnation="a")
    book.release("w", "a", 1.0)
    for now in (2.0, 5.0):
        book.beat("w", now, Heartbeat(incarnation="b", uptime=now), now)
    book.ended("w", 1, 6.0)
    book.granted("w", 2)

    for now in (8.0, 11.0, 14.0):
        assert book.beat("w", now, Heartbeat(incarnation="b", uptime=now), now) is Heard.RENEWED
    assert not book.release("w", "a", 15.0)
    assert book.release("w", "b", 15.0)


def test_a_straggler_of_a_life_that_ended_on_proof_is_no_second_process(book: LeaseTable) -> None:
    """One last beat of it, heard after the next one's first, is no conflict."""
    live(book, incarnation="a")
    book.release("w", "a", 1.0)
    book.beat("w", 2.0, Heartbeat(incarnation="b", uptime=1.0), 2.0)
    book.beat("w", 2.1, Heartbeat(incarnation="a", uptime=50.0), 2.1)

    assert book.beat("w", 5.0, Heartbeat(incarnation="b", uptime=4.0), 5.0) is not Heard.CONFLICT
    assert "w" not in book.incarnations.conflicts


@pytest.mark.parametrize("verdict", ["ended", "reborn"])
def test_the_next_lifes_promise_counts_from_its_last_beat_at_least(book: LeaseTable, verdict: str) -> None:
    """The verdict comes at a hearing time that lags behind the stamp of that beat: nothing is cut off by it."""
    live(book, "other", 3.0)
    live(book, incarnation="a")
    book.release("w", "a", 1.0)
    book.beat("w", 3.75, Heartbeat(incarnation="b"))
    if verdict == "ended":
        book.ended("w", 1, 3.25)
    else:
        book.reborn("w", 3.25)

    assert book.lines.deadline(lease_of(book)) == 13.75
    assert lapsed(book, 13.5) == ["other"]


def test_a_straggler_of_the_ended_process_does_not_make_the_next_one_look_younger(book: LeaseTable) -> None:
    """Both were read behind a gap; the straggler says nothing of when the next one began."""
    live(book, incarnation="a")
    book.release("w", "a", 15.0)
    book.beat("w", 20.0, Heartbeat(incarnation="a", uptime=15.0), 20.0, Arrived(20.0, 15.0, 20.0))
    book.beat("w", 20.0, Heartbeat(incarnation="b", uptime=1.0), 20.0, Arrived(20.0, 15.0, 20.0))

    assert ending_of(book).reborn_at == 14.0
