"""What a replica learns of the leader's grants."""

import pytest

from liveness.lease import Proof
from liveness.leases import Heard, LeaseTable
from liveness.messages import Heartbeat
from tests.unit.makers import ending_of, holds_live, lapsed, lease_of, live

TTL = 60.0


@pytest.fixture
def book() -> LeaseTable:
    """An empty book."""
    return LeaseTable(TTL)


def test_a_life_that_was_not_known_is_owed_a_ttl(book: LeaseTable) -> None:
    """With the epoch and the incarnation that Postgres knows."""
    book.learn("w", 5.0, 10.0, 7, "a", None)

    lease = lease_of(book)
    assert (lease.epoch, lease.incarnation, lease.ttl) == (7, "a", 10.0)
    assert lapsed(book, 14.9) == []
    assert lapsed(book, 15.0) == ["w"]


def test_what_is_learned_renews_nothing(book: LeaseTable) -> None:
    """A lease that was heard gets its epoch, and keeps its deadline and its ttl."""
    book.beat("w", 0.0, Heartbeat(incarnation="a", ttl=10.0))
    book.learn("w", 9.0, 50.0, 7, "a", None)

    assert lease_of(book).epoch == 7
    assert not book.wanting
    assert lapsed(book, 10.0) == ["w"]


def test_a_newer_epoch_that_is_learned_ends_the_one_before(book: LeaseTable) -> None:
    """A name that is silent here begins anew; an epoch that is older is no news."""
    live(book, epoch=2)
    book.learn("w", 3.0, 10.0, 1, None, None)
    assert lease_of(book).epoch == 2
    book.lapse(10.0)
    book.learn("w", 11.0, 20.0, 3, "b", None)

    lease = lease_of(book)
    assert (lease.epoch, lease.incarnation, lease.ending) == (3, "b", None)
    assert book.lines.deadline(lease) == 31.0


def test_an_epoch_of_the_next_life_that_is_learned_ends_the_former_one(book: LeaseTable) -> None:
    """This replica saw the restart as well, and never knew an epoch of the former life."""
    book.beat("w", 0.0, Heartbeat(incarnation="a", ttl=10.0))
    book.hello("w", 1.0, Heartbeat(incarnation="b"), 1.0)
    book.learn("w", 2.0, 10.0, 8, "b", None)

    lease = lease_of(book)
    assert (lease.epoch, lease.incarnation, lease.ending) == (8, "b", None)
    assert not book.endings


def test_what_is_learned_late_does_not_cut_off_the_next_lifes_promise(book: LeaseTable) -> None:
    """Hearing time lags behind the stamp of its last beat."""
    book.beat("w", 0.0, Heartbeat(incarnation="a", ttl=10.0))
    book.hello("w", 2.75, Heartbeat(incarnation="b"), 2.75)
    book.learn("w", 2.25, 10.0, 8, "b", None)

    assert book.lines.deadline(lease_of(book)) == 12.75


def test_an_epoch_of_the_life_that_ends_is_learned_as_that(book: LeaseTable) -> None:
    """The leader has not ended it yet: if we lead next, we shall."""
    book.beat("w", 0.0, Heartbeat(incarnation="a", ttl=10.0))
    book.hello("w", 1.0, Heartbeat(incarnation="b"), 1.0)
    book.learn("w", 2.0, 10.0, 7, "a", None)

    lease = lease_of(book)
    assert (lease.epoch, lease.incarnation, ending_of(book).incarnation) == (7, "b", "a")


def test_whose_process_has_died_is_dead_under_the_epoch_that_it_got_since(book: LeaseTable) -> None:
    """The leader had given it up and heard it again, which this replica did not see: it waits for no ttl."""
    live(book, epoch=7, incarnation="a")
    book.release("w", "a", 5.0, Proof("died"))
    book.learn("w", 6.0, 10.0, 9, "a", None)

    lease = lease_of(book)
    assert (lease.epoch, lease.after, ending_of(book).reason, list(book.endings)) == (9, 7, "died", ["w"])
    assert book.ended("w", 9, 7.0) is None
    assert book.get("w") is None


@pytest.mark.parametrize(
    ("reason", "incarnation"), [("released", "a"), ("operator", "a"), ("died", "b"), ("died", None)]
)
def test_no_other_end_is_that_of_an_epoch_that_was_issued_since(
    book: LeaseTable, reason: str, incarnation: str | None
) -> None:
    """Who said goodbye may have begun again; and of another process a certificate says nothing."""
    live(book, epoch=7, incarnation="a")
    book.release("w", "a", 5.0, Proof(reason))
    book.learn("w", 6.0, 10.0, 9, incarnation, None)

    assert (lease_of(book).epoch, lease_of(book).ending) == (9, None)


def test_who_is_heard_behind_a_certificate_has_the_epoch_that_was_issued_since(book: LeaseTable) -> None:
    """It may be the next process, whose beats name it as the former one."""
    live(book, epoch=7, incarnation="a")
    book.release("w", "a", 5.0, Proof("died"))
    book.beat("w", 6.0, Heartbeat(incarnation="a"), 6.0)
    book.learn("w", 7.0, 10.0, 9, "a", None)

    assert (lease_of(book).epoch, lease_of(book).ending) == (9, None)


def released(book: LeaseTable, uptime: float | None, at: float) -> bool:
    """Let a process of incarnation "a" say goodbye when it was so old; say whether that ends its life."""
    return book.release("w", "a", at, Proof("released", uptime=uptime))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("uptime", "greeted", "ends"),
    [(5.0, 5.5, False), (5.0, 5.0, True), (6.0, 5.5, True), (5.0, None, True), (None, 5.5, True)],
)
def test_a_goodbye_from_before_the_hello_that_is_learned_was_of_a_life_before(
    uptime: float | None, greeted: float | None, *, known: bool, ends: bool
) -> None:
    """Whether this replica knows the epoch already, under which it thinks that life to end, or learns it with that."""
    book = LeaseTable(TTL)
    book.beat("w", 0.0, Heartbeat(incarnation="a", ttl=10.0))
    if known:
        book.granted("w", 7)
    assert released(book, uptime, 5.0)
    book.learn("w", 6.0, 10.0, 7, "a", greeted)

    lease = lease_of(book)
    assert (lease.epoch, lease.incarnation, "w" in book.endings) == (7, "a", ends)
    assert (lapsed(book, 16.0) == ["w"]) is not ends


def test_a_goodbye_comes_late_where_the_hello_was_learned(book: LeaseTable) -> None:
    """As where it was heard."""
    book.learn("w", 1.0, 10.0, 7, "a", 5.5)
    assert not released(book, 5.0, 2.0)
    book.learn("w", 3.0, 10.0, 7, "a", 8.0)
    assert not released(book, 6.0, 4.0)

    assert released(book, 8.0, 5.0)


def test_what_is_learned_of_one_incarnation_says_nothing_of_another(book: LeaseTable) -> None:
    """Each counts from its own beginning."""
    live(book, epoch=7, incarnation="a")
    book.learn("w", 1.0, 10.0, 7, "b", 500.0)

    assert released(book, 6.0, 4.0)


def test_who_was_heard_beside_one_that_is_said_to_have_left_is_beside_it_again(book: LeaseTable) -> None:
    """That goodbye was of a life before; both live, and that is a conflict."""
    live(book, epoch=7, incarnation="a")
    for at in (1.0, 4.0):
        book.beat("w", at, Heartbeat(incarnation="b", uptime=at), at)
        book.beat("w", at + 0.5, Heartbeat(incarnation="a", uptime=at + 90.0), at + 0.5)
    assert released(book, 92.0, 5.0)
    assert lease_of(book).incarnation == "b"
    book.learn("w", 6.0, 10.0, 7, "a", 93.0)

    assert (lease_of(book).incarnation, book.incarnations.claims["w"].incarnation) == ("a", "b")
    assert not book.endings
    assert book.incarnations.conflicts == {"w"}


def test_a_life_that_others_ended_goes_on_as_the_next_one(book: LeaseTable) -> None:
    """It wants an epoch still."""
    book.beat("w", 0.0, Heartbeat(incarnation="a", ttl=10.0))
    book.release("w", "a", 1.0)
    book.beat("w", 2.0, Heartbeat(incarnation="b"))
    book.reborn("w", 3.0)

    assert holds_live(book, "w")
    assert list(book.wanting) == ["w"]
    assert lapsed(book, 13.0) == ["w"]


@pytest.mark.parametrize("learned", [False, True])
def test_a_restart_of_a_life_that_others_had_ended_before_is_looked_up(book: LeaseTable, learned: bool) -> None:  # noqa: FBT001 - a case of two
    """It may have lived on without an epoch, unheard here, and have left work that only Postgres knows of."""
    live(book, epoch=1, incarnation="a")
    book.hello("w", 5.0, Heartbeat(incarnation="b", uptime=1.0), 5.0)
    if learned:
        book.learn("w", 6.0, 10.0, 3, None, None)
    else:
        assert book.ended("w", 1, 6.0, elsewhere=True) is not None

    arrival = book.arrivals["w"]
    assert (arrival.incarnation, arrival.begun, arrival.greeted) == ("b", 4.0, True)


def test_the_life_after_a_proof_that_others_acted_upon_is_not_looked_up_while_another_one_is_heard(
    book: LeaseTable,
) -> None:
    """It has not said hello: the one that names no incarnation may live, and what it has touched is its own."""
    live(book, epoch=1, incarnation="a")
    book.release("w", "a", 4.0)
    book.beat("w", 5.0, Heartbeat(incarnation="b", uptime=1.0), 5.0)
    assert book.beat("w", 6.0, Heartbeat(), 6.0) is Heard.CONFLICT
    book.ended("w", 1, 7.0, elsewhere=True)

    assert not book.arrivals


def test_the_life_after_a_proof_that_others_acted_upon_is_looked_up_as_one_that_did_not_say_hello(
    book: LeaseTable,
) -> None:
    """So that whoever is heard beside it withdraws that."""
    live(book, epoch=1, incarnation="a")
    book.release("w", "a", 4.0)
    book.beat("w", 5.0, Heartbeat(incarnation="b", uptime=1.0), 5.0)
    book.ended("w", 1, 7.0, elsewhere=True)
    assert not book.arrivals["w"].greeted
    book.beat("w", 8.0, Heartbeat(), 8.0)

    assert not book.arrivals


def test_a_restart_that_was_ended_here_is_not_looked_up(book: LeaseTable) -> None:
    """The verdict took all that there was."""
    live(book, epoch=1, incarnation="a")
    book.hello("w", 5.0, Heartbeat(incarnation="b", uptime=1.0), 5.0)
    book.ended("w", 1, 6.0)

    assert not book.arrivals


def test_a_former_life_is_not_looked_for_when_the_leader_has_named_the_new_one(book: LeaseTable) -> None:
    """It has looked; and a hello that was read here too late would make the new process look younger than it is."""
    book.hello("w", 50.0, Heartbeat(incarnation="b"), 50.0)
    book.learn("w", 51.0, 10.0, 3, None, None)
    assert list(book.arrivals) == ["w"]
    book.learn("w", 52.0, 10.0, 3, "b", None)

    assert not book.arrivals


def test_a_third_process_is_looked_up_as_of_its_own_beginning(book: LeaseTable) -> None:
    """And not as of the second one's, whose restart others have ended meanwhile."""
    live(book, epoch=1, incarnation="a")
    book.hello("w", 5.0, Heartbeat(incarnation="b"), 5.0)
    book.hello("w", 8.0, Heartbeat(incarnation="c"), 8.0)
    book.ended("w", 1, 9.0, elsewhere=True)

    assert (book.arrivals["w"].incarnation, book.arrivals["w"].begun) == ("c", 8.0)
