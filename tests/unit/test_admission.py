"""Who is let in, and what is owed to whom was not."""

import json
from typing import Any

import msgspec
import pytest

from liveness.admission import CROWD_LEAST, CROWD_SECONDS, INVITED_SECONDS, PAYLOAD_MOST, SAVED_SECONDS, Admission
from liveness.errors import MessageError, TurnedAwayError
from liveness.group import Storm
from liveness.messages import Heartbeat
from tests.unit.makers import lease_of
from tests.unit.test_intake import Way


def come(admission: Admission, *names: str, leases: int = 0, arrival: float = 0.0) -> list[str | None]:
    """Let these come, one after another, and return by which bounds they are turned away."""
    return [admission.bound_for(name, leases, arrival) for name in names]


def test_a_full_book_takes_in_whoever_is_invited_and_no_stranger() -> None:
    """The bound is for strangers alone."""
    admission = Admission(max_workers=10)
    admission.invite(["known"], 0.0)

    assert come(admission, "known", "stranger", leases=10) == [None, "workers"]
    assert come(admission, "stranger", leases=9) == [None]
    admission.invite([], 1.0)
    assert come(admission, "known", leases=10) == ["workers"]


def test_strangers_come_in_at_a_rate_and_the_invited_beside_them() -> None:
    """Some seconds' worth at once; and then as many as come back in time."""
    admission, saved = Admission(max_grants=4.0), int(4 * SAVED_SECONDS)
    admission.invite(["known"], 0.0)

    assert come(admission, *(f"w{number}" for number in range(saved + 1)), arrival=5.0) == [*[None] * saved, "grants"]
    assert come(admission, "known", "x", arrival=5.125) == [None, "grants"]
    assert come(admission, "x", "y", "z", arrival=5.5) == [None, None, "grants"]
    # What is saved has an end, too.
    assert come(admission, *map(str, range(saved + 1)), arrival=9999.0) == [*[None] * saved, "grants"]


def test_at_a_rate_of_nothing_only_the_invited_come() -> None:
    """Whoever is to be heard has to be known to Postgres first."""
    admission = Admission(max_grants=0.0)
    admission.invite(["known"], 0.0)

    assert come(admission, "known", "w", arrival=1e9) == [None, "grants"]


def test_what_was_promised_by_those_who_were_turned_away_is_promised_to_all_without_a_lease() -> None:
    """The longest of it; and nobody could be heard for a ttl before the last of them."""
    admission = Admission()
    assert admission.could_be_heard("w", 0.0, 60.0)
    admission.turned_away(100.0, 600.0)
    admission.turned_away(150.0, 10.0)

    assert not admission.could_be_heard("w", 699.0, 60.0)
    assert admission.could_be_heard("w", 700.0, 60.0)
    assert not admission.could_be_heard("w", 700.0, 551.0)
    assert [admission.unheard_for("w", 690.0, ttl) for ttl in (60.0, 551.0)] == [10.0, 11.0]


def test_an_invited_name_could_be_heard_since_then_whoever_is_turned_away() -> None:
    """So a flood does not keep the dead of whom only Postgres knows from being found for ever."""
    admission = Admission()
    admission.turned_away(100.0, 60.0)
    admission.invite(["w"], 105.0)
    admission.turned_away(150.0, 60.0)
    admission.invite(["w", "v"], 150.0)

    assert not admission.could_be_heard("w", 164.0, 60.0)
    assert admission.could_be_heard("w", 165.0, 60.0)
    assert not admission.could_be_heard("w", 165.0, 61.0)
    assert not admission.could_be_heard("v", 165.0, 60.0)


def test_a_promise_from_before_an_invitation_is_kept() -> None:
    """It may have been of that very name."""
    admission = Admission()
    admission.turned_away(100.0, 600.0)
    admission.invite(["w"], 105.0)

    assert not admission.could_be_heard("w", 699.0, 60.0)
    assert admission.could_be_heard("w", 700.0, 60.0)


def test_postgres_is_asked_for_a_while_after_somebody_was_turned_away() -> None:
    """And never where nobody was."""
    admission = Admission()
    assert not admission.is_inviting(0.0)
    admission.turned_away(100.0, 10.0)

    assert admission.is_inviting(100.0 + INVITED_SECONDS / 2)
    assert not admission.is_inviting(100.0 + INVITED_SECONDS)


@pytest.mark.parametrize(("leases", "ordinary"), [(0, CROWD_LEAST), (400, 200), (100_000, 500)])
def test_a_crowd_is_as_large_as_would_make_a_storm_among_the_known(leases: int, ordinary: int) -> None:
    """Few strangers among many, or a few in all, are nobody in particular."""
    admission = Admission(max_grants=100.0)
    for number in range(1_000):
        admission.bound_for(f"w{number}", leases + number, 0.0)

    assert len(admission.strangers) == 1_000 - ordinary
    assert f"w{ordinary}" in admission.strangers
    assert f"w{ordinary - 1}" not in admission.strangers


def test_strangers_are_asked_about_in_turns_and_are_none_when_the_crowd_is_over() -> None:
    """Whoever Postgres knows is none, either."""
    admission = Admission(max_grants=100.0)
    come(admission, *(f"w{number}" for number in range(CROWD_LEAST + 4)))

    assert admission.to_ask(3, 0.0, 0) == ["w50", "w51", "w52"]
    admission.acquainted(["w51", "nobody"])
    assert admission.to_ask(3, 0.0, 0) == ["w53", "w50", "w52"]
    assert admission.to_ask(3, CROWD_SECONDS / 2, 0) != []
    assert admission.to_ask(3, CROWD_SECONDS, 0) == []
    assert not admission.strangers


@pytest.fixture
def way() -> Way:
    """A way in with room for one stranger."""
    way = Way()
    way.intake.admission = Admission(max_workers=1)
    way.beat("w")
    return way


def test_a_beat_of_a_stranger_is_not_taken_in_and_its_promise_is_kept(way: Way) -> None:
    """Within the bounds of a ttl, and by the default where none is stated."""
    promises: list[tuple[bytes, float]] = [(b"", 60.0), (b'{"ttl": 90}', 90.0), (b'{"ttl": 1e9}', 3600.0)]
    for payload, promised in promises:
        way.ears.listen(1.0)
        way.beat("stranger", payload)
        now = way.ears.now
        assert not way.intake.admission.could_be_heard("stranger", now + promised - 0.25, 1.0)
        assert way.intake.admission.could_be_heard("stranger", now + promised, 1.0)

    assert way.book.get("stranger") is None
    assert way.intake.counts["beyond_workers"] == 3
    assert way.intake.counts["heartbeats"] == 4


def test_who_is_in_the_book_is_never_turned_away(way: Way) -> None:
    """However full it is, and by whatever message."""
    way.ears.listen(1.0)
    way.beat("w", b'{"ttl": 5}')
    way.hello("w", incarnation="a")

    assert lease_of(way.book).incarnation == "a"
    assert way.intake.counts["beyond_workers"] == 0


def test_a_hello_of_a_stranger_begins_nothing_and_is_no_fault_of_its_own(way: Way) -> None:
    """Nobody complains of it, and it is good for a while like a beat."""
    with pytest.raises(TurnedAwayError):
        way.hello("stranger", incarnation="a", ttl=90)

    assert way.book.get("stranger") is None
    assert way.intake.counts["hello_refused"] == 0
    assert not way.intake.admission.could_be_heard("stranger", way.ears.now + 89.0, 1.0)
    way.intake.admission.invite(["stranger"], way.ears.now)
    way.hello("stranger", incarnation="a")
    assert way.book.get("stranger") is not None


def test_strangers_in_a_crowd_count_in_no_storm_until_postgres_knows_them() -> None:
    """Their beats are a sign that the way is open all the same."""
    way = Way()
    way.intake.admission = Admission(max_grants=100.0)
    for number in range(CROWD_LEAST + 1):
        way.beat(f"w{number}", b'{"via": "N1"}')
    group, stranger = way.storms.groups["N1"], f"w{CROWD_LEAST}"
    assert (group.members, lease_of(way.book, stranger).group) == (CROWD_LEAST, None)
    group.storm = storm = Storm(since=0.0, members=50, quiet=50, longest_ttl=60.0)
    way.beat(stranger, b'{"via": "N1"}')
    assert storm.sign_at is not None
    way.intake.admission.acquainted([stranger])
    way.beat(stranger, b'{"via": "N1"}')

    assert (group.members, lease_of(way.book, stranger).group) == (CROWD_LEAST + 1, group)


def test_a_heartbeat_that_is_too_long_beats_and_says_nothing(way: Way) -> None:
    """As one that does not decode; a hello or goodbye like that is refused."""
    long: dict[str, Any] = {"incarnation": "a", "ttl": 7.0, "running": ["x" * PAYLOAD_MOST]}
    way.ears.listen(1.0)
    way.beat("w", json.dumps(long).encode())
    assert lease_of(way.book).last_beat == way.ears.now
    assert (lease_of(way.book).incarnation, lease_of(way.book).stated) == (None, 60.0)
    with pytest.raises(MessageError, match=r"bytes, and 1048576 are the most"):
        way.hello("w", **long)
    way.goodbye("w", b" " * (PAYLOAD_MOST + 1))

    assert lease_of(way.book).ending is None
    assert way.intake.counts["beyond_payload"] == 3


def test_a_ttl_beyond_its_bounds_is_counted(way: Way) -> None:
    """At every beat that states it."""
    for ttl in (0.5, 5.0, 1e9):
        way.beat("w", msgspec.json.encode(Heartbeat(ttl=ttl)))

    assert way.intake.counts["beyond_ttl"] == 2
