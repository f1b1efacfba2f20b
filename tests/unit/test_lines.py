"""The order of the deadlines, and what it costs to keep it."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveness.lease import Lease, rounded_ttl
from liveness.lines import MOST_TTLS, Lines
from tests.unit.makers import names


@pytest.fixture
def lines() -> Lines:
    """No leases yet."""
    return Lines()


class Counting(Lines):
    """Lines that count at how many leases they had to look."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def deadline(self, lease: Lease) -> float:
        """Look at a lease."""
        self.looks += 1
        return super().deadline(lease)


def taken(lines: Lines, now: float) -> list[tuple[float, str]]:
    """Take out what has lapsed; return the deadlines and the names."""
    return [(deadline, lease.worker) for deadline, lease in lines.take_lapsed(now)]


def test_a_lease_lapses_at_the_end_of_its_ttl(lines: Lines) -> None:
    """Not a tick before."""
    lines.new("w", 10.0, 1.0)

    assert taken(lines, 10.999) == []
    assert taken(lines, 11.0) == [(11.0, "w")]
    assert taken(lines, 99.0) == []


def test_lapses_come_in_the_order_of_their_deadlines(lines: Lines) -> None:
    """Whatever their ttls and whenever they began."""
    lines.new("late", 30.0, 0.0)
    lines.new("first", 5.0, 1.0)
    lines.new("second", 5.0, 2.0)
    lines.new("third", 20.0, 0.0)

    assert lines.next_deadline() == 6.0
    assert names(list(lines.soonest())) == ["first", "second", "third", "late"]
    assert taken(lines, 100.0) == [(6.0, "first"), (7.0, "second"), (20.0, "third"), (30.0, "late")]
    assert lines.next_deadline() == math.inf


def test_an_extension_gives_everybody_a_full_ttl(lines: Lines) -> None:
    """Each its own, from the moment of the extension; who has longer keeps it."""
    short, long = lines.new("short", 10.0, 0.0), lines.new("long", 20.0, 0.0)
    lines.extend(8.0)
    later = lines.new("later", 10.0, 9.0)

    assert [lines.deadline(lease) for lease in (short, long, later)] == [18.0, 28.0, 19.0]
    assert lines.next_deadline() == 18.0


def test_a_grace_leaves_everybody_so_much_and_nobody_more(lines: Lines) -> None:
    """Who has longer to go anyway is not touched."""
    soon, later = lines.new("soon", 10.0, 0.0), lines.new("later", 20.0, 0.0)
    lines.grace(11.0)

    assert [lines.deadline(lease) for lease in (soon, later)] == [11.0, 20.0]
    assert taken(lines, 10.999) == []
    assert taken(lines, 11.0) == [(11.0, "soon")]


def test_what_was_owed_is_not_taken_back(lines: Lines) -> None:
    """By an extension or a grace that is older."""
    lease = lines.new("w", 10.0, 0.0)
    lines.extend(8.0)
    lines.extend(7.0)
    assert lines.deadline(lease) == 18.0
    lines.grace(20.0)
    lines.grace(19.0)

    assert lines.deadline(lease) == 20.0


@pytest.mark.parametrize("owe", [Lines.extend, lambda lines, now: Lines.grace(lines, now + 10.0)])
def test_deafness_in_small_pieces_does_not_keep_the_dead(lines: Lines, owe: Callable[[Lines, float], None]) -> None:
    """A lease lapses once it was listened to for three ttls since its last beat, whatever the gaps."""
    lines.new("w", 10.0, 1.0)
    for now in range(1, 31):
        owe(lines, float(now))
        assert taken(lines, float(now)) == []

    owe(lines, 31.0)
    assert taken(lines, 31.0) == [(1.0 + MOST_TTLS * 10.0, "w")]


@given(
    ttl=st.integers(1, 5),
    since=st.lists(st.integers(0, 40), min_size=2, max_size=10),
    extended=st.integers(0, 40),
    floor=st.integers(0, 40),
)
def test_nothing_changes_the_order_within_a_line(ttl: int, since: list[int], extended: int, floor: int) -> None:
    """That is why a gap costs the same however many leases there are."""
    lines = Lines()
    leases = [lines.new(f"{number}", ttl, now) for number, now in enumerate(sorted(since))]
    lines.extend(extended)
    lines.grace(floor)

    deadlines = [lines.deadline(lease) for lease in leases]
    assert deadlines == sorted(deadlines)
    assert deadlines == [min(max(max(at, extended) + ttl, floor), at + 3 * ttl) for at in sorted(since)]


def test_a_renewal_puts_the_lease_last_in_its_line(lines: Lines) -> None:
    """Its promise counts from the renewal."""
    one = lines.new("one", 10.0, 0.0)
    lines.new("two", 10.0, 1.0)
    lines.renew(one, 5.0)

    assert taken(lines, 20.0) == [(11.0, "two"), (15.0, "one")]


def test_a_lease_that_joins_a_line_never_overtakes_the_last_one(lines: Lines) -> None:
    """It counts from that one's beat, a little later than its own, so that joining costs the same at any size."""
    lines.new("one", 10.0, 5.0)
    lines.new("two", 10.0, 4.0)

    assert taken(lines, 15.0) == [(15.0, "one"), (15.0, "two")]


def test_a_lease_can_be_put_into_its_place_in_the_past(lines: Lines) -> None:
    """In front of those that were heard later, behind those that were heard before."""
    one, _, _ = (lines.new(name, 10.0, now) for name, now in [("moved", 0.0), ("early", 1.0), ("late", 9.0)])
    lines.take_out(one)
    lines.place(one, 5.0)

    assert taken(lines, 20.0) == [(11.0, "early"), (15.0, "moved"), (19.0, "late")]


def test_a_shorter_ttl_counts_once_it_reaches_beyond_the_promise_in_force(lines: Lines) -> None:
    """To the tick, with what an extension owes."""
    lease = lines.new("w", 100.0, 0.0)
    lines.extend(10.0)
    lease.stated = 5.0
    lines.renew(lease, 104.0)
    assert (lease.line.ttl, lines.deadline(lease)) == (100.0, 110.0)

    lines.renew(lease, 105.0)
    assert (lease.line.ttl, lines.deadline(lease)) == (5.0, 110.0)


def test_the_limit_of_a_longer_promise_does_not_cut_what_a_loss_owes_to_a_later_beat(lines: Lines) -> None:
    """Losses keep a promise of 60 s in force for three ttls, while beats that state 10 s come all the time."""
    lease = lines.new("w", 60.0, 0.0)
    lease.stated = 10.0
    for loss in (5.0, 55.0, 105.0, 155.0):
        lines.extend(loss)
        lines.renew(lease, loss + 9.0)
    lines.extend(170.0)

    # And not 180, three times the promise that was made at 0.
    assert (lease.since, lines.deadline(lease)) == (164.0, 180.0)
    lines.extend(173.0)
    assert lines.deadline(lease) == 183.0


def test_who_is_due_within_a_lead_that_follows_the_ttl(lines: Lines) -> None:
    """Half of each ttl, say; deadlines at exactly that moment are due."""
    for name, ttl, since in [("a", 10.0, 0.0), ("b", 10.0, 2.0), ("c", 10.0, 2.5), ("d", 4.0, 5.0), ("e", 4.0, 6.0)]:
        lines.new(name, ttl, since)

    assert sorted(names(list(lines.due_within(7.0, lambda ttl: ttl / 2)))) == ["a", "b", "d"]


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_look_costs_the_same_at_any_size(size: int) -> None:
    """It looks at as many leases as there are distinct ttls, beside those that it finds."""
    lines = Counting()
    for number in range(size):
        lines.new(f"{number}", 10.0 + number % 2, 0.0)
    first = next(lines.soonest())
    lines.extend(1.0)
    lines.grace(2.0)

    lines.looks = 0
    assert taken(lines, 5.0) == []
    assert lines.looks == 2
    lines.next_deadline()
    assert lines.looks == 4
    assert list(lines.due_within(5.0, lambda _: 1.0)) == []
    assert lines.looks == 6
    lines.renew(first, 6.0)
    assert lines.looks == 6


def test_what_is_found_is_all_that_is_looked_at() -> None:
    """And the first of each line that is not."""
    lines = Counting()
    for number in range(100):
        lines.new(f"{number}", 10.0, float(number))

    assert len(list(lines.due_within(10.0, lambda _: 4.0))) == 5
    assert lines.looks == 6
    lines.looks = 0
    assert len(taken(lines, 14.0)) == 5
    assert lines.looks == 6


def test_lines_that_nobody_stands_in_are_dropped(lines: Lines) -> None:
    """A worker that states another ttl with every beat leaves no trail."""
    lease = lines.new("w", 1.0, 0.0)
    for ttl in range(2, 500):
        lease.stated = float(ttl)
        lines.renew(lease, 1000.0 * ttl)
        lines.take_lapsed(1000.0 * ttl)

    assert len(lines) == 1


@pytest.mark.parametrize(
    ("stated", "counted"), [(2.0, 2.0), (0.3, 0.3), (2.3, 2.3), (10.001, 10.1), (12.34, 12.4), (3599.0, 3600.0)]
)
def test_a_ttl_is_rounded_up_to_three_digits(stated: float, counted: float) -> None:
    """Never down: a promise is not made shorter."""
    assert rounded_ttl(stated) == counted
