"""The way in, without a bus."""

import msgspec
import pytest
from structlog.testing import capture_logs

from liveness.hearing import Hearing
from liveness.intake import Intake
from liveness.leases import LeaseTable
from liveness.settings import Settings


class Way:
    """An intake whose clock stands where the test puts it, and which notes whom it woke."""

    def __init__(self) -> None:
        self.time = 0.0
        self.woken: list[str] = []
        self.book = LeaseTable(60.0)
        hearing = Hearing(0.0)
        hearing.start(0.0)
        self.intake = Intake(
            book=self.book,
            hearing=hearing,
            settings=Settings(),
            clock=lambda: self.time,
            on_new=lambda: self.woken.append("new"),
            on_ending=lambda: self.woken.append("ending"),
        )

    def beat(self, worker: str, payload: bytes = b"") -> None:
        """A heartbeat comes from the bus."""
        self.intake.heartbeat(f"liveness.heartbeat.{worker}", payload)

    def goodbye(self, worker: str, payload: bytes = b"") -> None:
        """A goodbye comes from the bus."""
        self.intake.goodbye(f"liveness.goodbye.{worker}", payload)


@pytest.fixture
def way() -> Way:
    """A way in with an empty book."""
    return Way()


def test_the_subject_is_the_identity(way: Way) -> None:
    """Whatever the payload claims to be."""
    way.beat("eu.host-1", b'{"worker": "somebody else", "ttl": 5}')

    lease = way.book.get("eu.host-1")
    assert lease is not None
    assert lease.ttl == 5.0
    assert len(way.book) == 1


def test_the_first_beat_wakes_the_grants_and_a_renewal_nobody(way: Way) -> None:
    """A renew touches no database."""
    way.beat("w")
    way.book.granted("w", 1)
    way.book.changed.clear()
    for _ in range(100):
        way.beat("w")

    assert way.woken == ["new"]


def test_a_changed_ttl_wakes_the_grants(way: Way) -> None:
    """A restart has to know of it."""
    way.beat("w", b'{"ttl": 5}')
    way.book.granted("w", 1)
    way.beat("w", b'{"ttl": 50}')

    assert way.woken == ["new", "new"]


def test_a_malformed_beat_renews_and_is_complained_of_once_a_worker(way: Way) -> None:
    """Counted each time, logged once."""
    with capture_logs() as logs:
        for worker in ("a", "b", "a", "a"):
            way.beat(worker, b"{")

    assert len(way.book) == 2
    assert way.intake.counts["malformed"] == 4
    assert [(line["event"], line["worker"]) for line in logs] == [("malformed", "a"), ("malformed", "b")]


def test_a_name_that_is_none_gets_no_lease(way: Way) -> None:
    """It is counted and logged once."""
    with capture_logs() as logs:
        way.beat("x" * 300)
        way.beat("x" * 300)

    assert len(way.book) == 0
    assert way.intake.counts["unusable_name"] == 2
    assert len(logs) == 1


def test_a_ttl_of_ten_years_is_clamped(way: Way) -> None:
    """To max_ttl."""
    way.beat("w", b'{"ttl": 315360000}')

    lease = way.book.get("w")
    assert lease is not None
    assert lease.ttl == 3600.0


def test_a_goodbye_ends_the_life_and_wakes_the_way_out(way: Way) -> None:
    """Its work goes back at once."""
    way.beat("w", b'{"incarnation": "a"}')
    way.goodbye("w", b'{"incarnation": "a"}')

    assert way.woken == ["new", "ending"]
    assert list(way.book.endings) == ["w"]


@pytest.mark.parametrize("payload", [b'{"incarnation": "b"}', b"", b"{"])
def test_a_goodbye_of_somebody_else_or_illegible_ends_nothing(way: Way, payload: bytes) -> None:
    """Live work is never taken away."""
    way.beat("w", b'{"incarnation": "a"}')
    way.goodbye("w", payload)

    assert not way.book.endings
    assert way.woken == ["new"]


def test_a_certificate_keeps_what_it_saw(way: Way) -> None:
    """Exit code and signal are evidence."""
    way.beat("w")
    way.goodbye("w", msgspec.json.encode({"signal": 9}))

    ending = way.book.endings["w"].ending
    assert ending is not None
    assert ending.reason == "died"
    assert ending.details == {"exit_code": None, "signal": 9}


def test_a_stall_of_ours_makes_nobody_lapse(way: Way) -> None:
    """A loop that stood still for longer than the ttl reads the beats that waited before it counts the time."""
    way.beat("w", b'{"ttl": 5}')
    way.time = 60.0
    way.beat("w", b'{"ttl": 5}')

    assert way.book.lapse(5.0) == []
