"""The way in, without a bus."""

import json
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from liveness.errors import MessageError
from liveness.group import Storm
from liveness.intake import LINE_SECONDS, TELL_SECONDS, Intake
from liveness.leases import LeaseTable
from liveness.messages import Superseded
from liveness.reports import Reports, Unreported
from liveness.settings import Settings
from liveness.storms import Storms
from liveness.wakes import Wakes
from tests.unit.makers import Ears, ending_of, lapsed, lease_of


class Way:
    """An intake with ears whose time the test lets pass, and which notes what it says and to whom."""

    def __init__(self) -> None:
        self.ears = Ears()
        self.book = LeaseTable(60.0)
        self.storms = Storms(max_hold=600.0, shuffle=lambda _: None)
        self.wakes = Wakes()
        self.echoes: list[bytes] = []
        self.told: list[tuple[str, Superseded]] = []
        self.intake = Intake(
            book=self.book,
            hearing=self.ears.hearing,
            storms=self.storms,
            settings=Settings(),
            clock=lambda: self.ears.time,
            wakes=self.wakes,
            on_echo=self.echoes.append,
            tell=lambda subject, payload: self.told.append((subject, msgspec.json.decode(payload, type=Superseded))),
        )

    def beat(self, worker: str = "w", payload: bytes = b"", **fields: Any) -> None:
        """A heartbeat comes from the bus."""
        self.intake.heartbeat(f"liveness.heartbeat.{worker}", json.dumps(fields).encode() if fields else payload)

    def goodbye(self, worker: str, payload: bytes = b"") -> None:
        """A goodbye comes from the bus."""
        self.intake.goodbye(f"liveness.goodbye.{worker}", payload)

    def hello(self, worker: str = "w", **fields: Any) -> None:
        """A hello comes from the bus."""
        self.intake.hello(f"liveness.hello.{worker}", json.dumps(fields).encode())

    def settled(self, epoch: int, new_epoch: int) -> None:
        """Postgres has given its verdict on the life of `w`, and the next one its epoch."""
        self.book.ended("w", epoch, self.ears.now)
        self.book.granted("w", new_epoch)

    def woken(self, *duties: str) -> bool:
        """Say whether any of these was woken, and let it sleep again."""
        events = [getattr(self.wakes, duty) for duty in duties]
        woken = any(event.is_set() for event in events)
        for event in events:
            event.clear()
        return woken


@pytest.fixture
def way() -> Way:
    """A way in with an empty book."""
    return Way()


def test_the_subject_is_the_identity(way: Way) -> None:
    """Whatever the payload claims to be."""
    way.beat("eu.host-1", b'{"worker": "somebody else", "ttl": 5}')

    assert lease_of(way.book, "eu.host-1").ttl == 5.0
    assert len(way.book) == 1


def test_the_first_beat_wakes_the_grants_and_a_renewal_nobody(way: Way) -> None:
    """A renew touches no database."""
    way.beat("w")
    assert way.woken("lives")
    way.book.granted("w", 1)
    way.book.changed.clear()
    for _ in range(100):
        way.beat("w")

    assert not way.woken("lives", "arrivals", "endings", "rest", "news")


def test_a_changed_ttl_is_written_with_the_next_round(way: Way) -> None:
    """A restart has to know of it, and a worker whose ttl changes with every beat must not cost a statement each."""
    way.beat("w", b'{"ttl": 5}')
    way.book.granted("w", 1)
    way.book.changed.clear()
    assert way.woken("lives")
    way.beat("w", b'{"ttl": 50}')

    assert not way.woken("lives")
    assert list(way.book.changed) == ["w"]


def test_nothing_is_logged_of_heartbeats(way: Way) -> None:
    """Not at any level, of the first of a life as little as of the thousandth."""
    with capture_logs() as logs:
        for number in range(1000):
            way.beat("w", b'{"incarnation": "a", "seq": %d, "ttl": 10, "running": ["1"], "progress": 3}' % number)

    assert way.intake.counts["heartbeats"] == 1000
    assert logs == []


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

    assert lease_of(way.book).ttl == 3600.0


def test_a_goodbye_ends_the_life_and_wakes_the_way_out(way: Way) -> None:
    """Its work goes back at once."""
    way.beat("w", b'{"incarnation": "a"}')
    way.goodbye("w", b'{"incarnation": "a"}')

    assert way.woken("endings")
    assert list(way.book.endings) == ["w"]


@pytest.mark.parametrize("payload", [b'{"incarnation": "b"}', b"", b"{"])
def test_a_goodbye_of_somebody_else_or_illegible_ends_nothing(way: Way, payload: bytes) -> None:
    """Live work is never taken away."""
    way.beat("w", b'{"incarnation": "a"}')
    way.goodbye("w", payload)

    assert not way.book.endings
    assert not way.woken("endings")
    assert way.intake.counts["goodbye_malformed"] + way.intake.counts["goodbye_stale"] == 1


def test_a_goodbye_that_comes_behind_the_next_hello_is_passed_by(way: Way) -> None:
    """The life that has begun since goes on, and it is said why."""
    way.beat("w", incarnation="a", uptime=5.0)
    way.hello(incarnation="a", uptime=8.25)
    way.woken("endings")
    with capture_logs() as logs:
        way.goodbye("w", b'{"incarnation": "a", "uptime": 8.0}')

    assert not way.book.endings
    assert not way.woken("endings")
    assert way.intake.counts["goodbye_stale"] == 1
    assert [line["event"] for line in logs] == ["goodbye_stale"]
    assert "comes late, of a life that is over: said at an age of 8.000 s" in logs[0]["complaint"]
    assert "by its hello at 8.250 s" in logs[0]["complaint"]


def test_a_certificate_keeps_what_it_saw(way: Way) -> None:
    """Exit code and signal are evidence."""
    way.beat("w")
    way.goodbye("w", msgspec.json.encode({"signal": 9}))

    ending = ending_of(way.book)
    assert ending.reason == "died"
    assert ending.details == {"exit_code": None, "signal": 9}


def test_a_beat_is_noted_when_it_was_heard_at_the_latest(way: Way) -> None:
    """By the stamp, so that no echo which has yet to come cuts its promise short."""
    way.ears.listen(1.0)
    way.ears.wait(0.25)
    way.beat("w", ttl=5)

    assert way.book.lines.deadline(lease_of(way.book)) == 6.25


def test_a_stall_of_ours_makes_nobody_lapse(way: Way) -> None:
    """A loop that stood still for longer than the ttl reads the beats that waited before it counts any of the time."""
    way.ears.listen(1.0)
    way.beat("w", ttl=5)
    way.ears.stall(60.0)
    assert lapsed(way.book, way.ears.now) == []
    way.beat("w", ttl=5)
    way.ears.listen(4.75)

    assert lapsed(way.book, way.ears.now) == []


def test_what_the_service_says_to_itself_is_no_heartbeat(way: Way) -> None:
    """Nothing below its own name is."""
    way.beat("$liveness.echo.replica", b"token")
    way.beat("$liveness.w", b"")

    assert way.echoes == [b"token", b""]
    assert len(way.book) == 0
    assert way.intake.counts["heartbeats"] == 0


def test_a_beat_joins_its_nats_servers_group(way: Way) -> None:
    """And a stale one shows that its way is open."""
    way.beat("w", via="n1", incarnation="a")
    assert way.storms.groups["n1"].members == 1
    way.hello(incarnation="b", via="n2")
    assert (way.storms.groups["n1"].members, way.storms.groups["n2"].members) == (0, 1)

    way.storms.groups["n1"].storm = storm = Storm(since=0.0, members=3, quiet=3, longest_ttl=60.0)
    way.beat("w", via="n1", incarnation="a")
    assert storm.sign_at is not None


def test_who_floods_with_hellos_fills_no_log(way: Way) -> None:
    """A line of each kind for a name and a second, which says how many were left out; others have theirs."""
    with capture_logs() as logs:
        for number in range(10):
            way.hello(incarnation=f"{number}", uptime=0.0)
        way.hello("other", incarnation="a", uptime=0.0)
        way.ears.wait(LINE_SECONDS)
        way.hello(incarnation="new", uptime=0.0)

    assert [(line["event"], line["worker"], line["left_out"]) for line in logs] == [
        ("hello", "w", 0),
        ("restarted", "w", 0),
        ("hello", "other", 0),
        ("restarted", "w", 8),
        ("hello", "w", 9),
    ]


def test_an_uptime_of_ten_thousand_years_is_bounded(way: Way) -> None:
    """Postgres has to be able to count back from now."""
    way.beat("w", incarnation="a")
    way.beat("w", incarnation="b", uptime=1e300)

    assert way.ears.time - way.book.incarnations.claims["w"].begun < 20 * 365 * 86_400


def test_an_answer_to_a_probe_is_a_beat_of_one_that_answers(way: Way) -> None:
    """Whatever it says; but it brings nobody into the book."""
    way.beat("w", ttl=5, probe=True)
    lease_of(way.book).probe = False
    way.ears.listen(4.0)
    way.intake.probe_answer("w", b"\xff")
    way.intake.probe_answer("x" * 300, b"")

    assert lease_of(way.book).probe
    assert len(way.book) == 1
    assert lapsed(way.book, 8.75) == []
    assert lapsed(way.book, 9.0) == ["w"]


def test_a_hello_begins_a_life_and_asks_for_the_former_one(way: Way) -> None:
    """The duties that look for it are woken."""
    way.hello(incarnation="a", ttl=1e9)

    assert way.woken("lives")
    assert way.woken("arrivals")
    assert lease_of(way.book).ttl == 3600.0
    assert way.intake.counts["hellos"] == 1


def test_a_hello_that_ends_a_life_wakes_the_way_out(way: Way) -> None:
    """Its work goes back at once."""
    way.beat("w", incarnation="a")
    way.woken("endings", "lives")
    with capture_logs() as logs:
        way.hello(incarnation="b", uptime=0.5)

    assert way.woken("endings")
    assert way.woken("lives")
    assert way.intake.counts["restarts"] == 1
    assert [line["event"] for line in logs] == ["restarted", "hello"]


@pytest.mark.parametrize(
    ("worker", "payload"),
    [("w", b""), ("w", b"{}"), ("w", b'{"incarnation": ""}'), ("x" * 300, b'{"incarnation": "a"}')],
)
def test_a_hello_that_is_not_legible_is_refused(way: Way, worker: str, payload: bytes) -> None:
    """It would take work."""
    with pytest.raises(MessageError):
        way.intake.hello(f"liveness.hello.{worker}", payload)

    assert len(way.book) == 0
    assert way.intake.counts["hello_refused"] == 1


def test_a_hello_of_a_former_incarnation_is_refused(way: Way) -> None:
    """In words that can be answered."""
    way.beat("w", incarnation="a")
    way.hello(incarnation="b")
    with pytest.raises(MessageError, match="the incarnation a is over"):
        way.hello(incarnation="a")

    assert way.intake.counts["stale"] == 1


def test_a_former_incarnation_is_told_that_it_is_over(way: Way) -> None:
    """Once the verdict is in, and at most once a second however fast it beats; it renews nothing."""
    way.beat("w", incarnation="a", ttl=5)
    way.book.granted("w", 1)
    way.hello(incarnation="b")
    way.beat("w", incarnation="a")
    assert way.told == []
    way.settled(1, 2)
    for _ in range(8):
        way.beat("w", incarnation="a")
        way.ears.wait(TELL_SECONDS / 4)

    told = ("liveness.superseded.w", Superseded(epoch=1, incarnation="a", new_epoch=2, new_incarnation="b"))
    assert way.told == [told, told]
    assert way.intake.counts["stale"] == 9
    assert lapsed(way.book, 5.0) == ["w"]


def test_two_incarnations_that_beat_are_loud(way: Way) -> None:
    """Once for each time that it begins."""
    with capture_logs() as logs:
        for number in range(5):
            way.beat("w", incarnation="a", uptime=100 + number)
            way.beat("w", incarnation="b", uptime=1 + number)

    assert [line["log_level"] for line in logs if line["event"] == "conflict"] == ["error"]
    assert way.intake.counts["conflicts"] == 1


@pytest.mark.parametrize(("payload", "counts"), [(b"", False), (b"\xff", False), (b'{"incarnation": "a"}', True)])
def test_a_beat_without_incarnation_casts_doubt_on_the_list_of_one_that_has_one(
    way: Way, *, payload: bytes, counts: bool
) -> None:
    """Whatever it says: it may be another process's, which runs what the other one does not list."""
    way.intake.reports = reports = Reports(leak_grace=60.0, wedge_after=0.0)
    way.beat(incarnation="a", running=[])
    way.book.granted("w", 1)
    way.book.incarnations.settled("w")
    way.beat(payload=payload)

    assert [worker for worker, _ in reports.listing(way.book, [b"w"])] == ["w"] * counts


def test_a_beat_without_a_list_and_a_name_begins_anew_what_is_missing(way: Way) -> None:
    """It may be of another process, which says of its work only that it lives."""
    way.intake.reports = reports = Reports(leak_grace=60.0, wedge_after=0.0)
    way.beat(payload=b'{"running": []}')
    way.book.granted("w", 1)
    report = reports.of[b"w"]
    reports.looked(way.book, {"w": []}, [Unreported("w", "workflow", "1", "mark")], 1.0)
    assert report.missing
    way.beat(payload=b"")

    assert not report.missing
    assert report.running == []


def test_a_new_incarnation_that_does_not_say_since_when_is_advised(way: Way) -> None:
    """To say hello."""
    way.beat("w", incarnation="a")
    with capture_logs() as logs:
        way.beat("w", incarnation="b")

    assert "send hello" in logs[0]["complaint"]
    assert way.intake.counts["incarnation_without_uptime"] == 1


def test_a_restart_by_heartbeats_wakes_the_way_out(way: Way) -> None:
    """As a hello does. It began by the last echo before its beats, behind which NATS has accepted them."""
    way.beat("w", incarnation="a")
    way.ears.listen(3.0)
    way.woken("endings", "lives")
    for uptime in (1, 4):
        way.ears.wait(0.25)
        way.beat("w", incarnation="b", uptime=uptime)
        way.ears.listen(2.75)

    assert way.woken("endings")
    assert way.woken("lives")
    assert way.intake.counts["restarts"] == 1
    assert ending_of(way.book).reborn_at == 2.0


def test_a_revival_is_counted(way: Way) -> None:
    """It came before the verdict."""
    way.beat("w", ttl=5)
    way.book.lapse(5.0)
    way.beat("w")

    assert way.intake.counts["revived"] == 1
    assert not way.book.endings
