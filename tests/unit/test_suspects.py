"""Who is suspect, rule by rule: a hint that takes nothing, and that nobody may get by many falling silent at once."""

import math
import random

import pytest

from liveness.group import Storm
from liveness.lease import LEAST_PACE, MOST_PACE, pace_of
from liveness.leases import LeaseTable
from liveness.lines import MOST_LINES, Lines
from liveness.messages import Heartbeat
from liveness.storms import Storms
from liveness.suspects import LATE_INTERVALS, SUSPECT_INTERVALS, Suspects
from tests.unit.makers import lease_of, restored

TTL, INTERVAL, LEAST = 10.0, 2.0, 1.0
DUE = SUSPECT_INTERVALS * INTERVAL


class Looking:
    """A book, its storms and its suspects."""

    def __init__(self) -> None:
        self.book = LeaseTable(60.0)
        self.storms = Storms(max_hold=600.0, shuffle=lambda _: None)
        self.suspects = Suspects(book=self.book, storms=self.storms, least=LEAST)

    def beat(
        self,
        *workers: str,
        at: float,
        interval: float | None = INTERVAL,
        ttl: float = TTL,
        via: str = "n1",
        incarnation: str | None = None,
    ) -> None:
        """Let workers beat."""
        for worker in workers:
            self.book.beat(worker, at, Heartbeat(interval=interval, ttl=ttl, via=via, incarnation=incarnation))
            self.book.granted(worker, 1)
            self.storms.heard(lease_of(self.book, worker), via, at)

    def look(self, now: float) -> dict[str, str]:
        """Return who is suspect now, and why."""
        self.suspects.look(now)
        return {worker: suspect.cause for worker, suspect in self.suspects.suspected.items()}

    def crowd(self, size: int, *, at: float = 0.0, spread: float = 0.0, via: str = "n1") -> list[str]:
        """Let so many beat, spread over so many seconds behind `at`."""
        names = [f"{via}-{number:03}" for number in range(size)]
        for number, name in enumerate(names):
            self.beat(name, at=at + spread * number / size, via=via)
        return names


@pytest.fixture
def looking() -> Looking:
    """Nobody is known yet."""
    return Looking()


# 1. Silence.


def test_silence_of_two_intervals_makes_a_suspect_and_a_beat_takes_it_back(looking: Looking) -> None:
    """Not before, and long before the ttl, at which it loses its work as anybody."""
    looking.beat("w", at=0.0)

    assert looking.look(DUE - 0.25) == {}
    assert looking.look(DUE) == {"w": "silent"}
    assert looking.look(DUE + 1.0) == {"w": "silent"}
    assert lease_of(looking.book, "w").ending is None
    looking.beat("w", at=DUE + 1.5)
    assert looking.look(DUE + 2.0) == {}
    assert looking.book.lapse(DUE + TTL) == []


@pytest.mark.parametrize("interval", [None, 0.0])
def test_who_states_no_interval_is_never_suspect_for_its_silence(looking: Looking, interval: float | None) -> None:
    """Nobody knows when its next beat is due."""
    looking.beat("w", at=0.0, interval=interval)

    assert looking.look(TTL - 0.25) == {}


def test_an_interval_that_is_shorter_than_a_stamp_is_exact_makes_no_suspect_of_the_living(looking: Looking) -> None:
    """A beat may be noted `least` too late, and so may the next."""
    looking.beat("w", at=0.0, interval=0.01)

    assert looking.look(LEAST - 0.25) == {}
    assert looking.look(LEAST) == {"w": "silent"}


def test_the_latest_interval_counts(looking: Looking) -> None:
    """A worker may slow down, and is not suspect by what it once stated; without any more, by the last."""
    looking.beat("w", at=0.0)
    looking.beat("w", at=1.0, interval=4.0)
    looking.beat("w", at=2.0, interval=None)

    assert looking.look(2.0 + DUE) == {}
    assert looking.look(10.0) == {"w": "silent"}


def test_a_shorter_ttl_does_not_make_a_suspect_of_who_keeps_a_longer_promise(looking: Looking) -> None:
    """It stands where the longer promise stands, and beats."""
    looking.beat("w", at=0.0, ttl=100.0)
    for at in (2.0, 4.0, 6.0, 8.0):
        looking.beat("w", at=at)
        assert looking.look(at) == {}
    assert looking.look(8.0 + DUE) == {"w": "silent"}


def test_a_restored_lease_is_nobody_who_was_heard(looking: Looking) -> None:
    """What it states is not known yet."""
    restored(looking.book, "w")

    assert looking.look(9.0) == {}


def test_beats_that_may_be_lost_are_no_silence(looking: Looking) -> None:
    """Behind a loss, silence begins anew."""
    looking.beat("w", at=0.0)
    looking.book.lines.extend(3.0)

    assert looking.look(3.0 + DUE - 0.25) == {}
    assert looking.look(3.0 + DUE) == {"w": "silent"}


def test_beats_that_may_be_late_are_waited_for(looking: Looking) -> None:
    """While a gap's beats are on their way, nobody becomes suspect, whatever is said of them."""
    looking.beat("w", "x", at=0.0)
    looking.book.lines.grace(6.0)
    looking.suspects.disconnected("x", "n1")

    assert looking.look(5.0) == {}
    assert looking.look(6.0) == {"w": "silent", "x": "disconnected"}


def test_one_that_has_lapsed_or_said_goodbye_is_no_new_suspect(looking: Looking) -> None:
    """Other news tells of its end; one that was suspect before stays so until then."""
    looking.beat("w", "x", "y", at=0.0, via="")
    looking.book.release("x", None, 1.0)
    assert looking.look(DUE) == {"w": "silent", "y": "silent"}

    looking.book.lapse(TTL)
    looking.book.forget("y")
    assert looking.look(TTL) == {"w": "silent"}


# 2 and 3. What is said of a worker.


def test_a_failed_probe_makes_a_suspect(looking: Looking) -> None:
    """Of one that states no interval, too."""
    looking.beat("w", at=0.0, interval=None)
    looking.suspects.probe_failed("w")
    looking.suspects.probe_failed("nobody")

    assert looking.look(9.5) == {"w": "probe"}


def test_a_lost_connection_makes_a_suspect(looking: Looking) -> None:
    """By the server by which it is heard: by another one it may have been connected before."""
    looking.beat("w", "x", at=0.0, interval=None)
    looking.suspects.disconnected("w", "n1")
    looking.suspects.disconnected("x", "n2")

    assert looking.look(0.5) == {"w": "disconnected"}


def test_a_beat_behind_a_lost_connection_says_that_another_one_stands(looking: Looking) -> None:
    """It was connected again before anybody looked."""
    looking.beat("w", at=0.0)
    looking.suspects.disconnected("w", "n1")
    looking.beat("w", at=0.25)

    assert looking.look(0.5) == {}
    assert looking.look(0.75) == {}


def test_a_server_that_stops_makes_nobody_suspect(looking: Looking) -> None:
    """It says of everybody that the connection is lost, and they find another one."""
    names = looking.crowd(10)
    for name in names:
        looking.suspects.disconnected(name, "n1")

    assert looking.look(0.5) == {}


# 4. Many at once.


@pytest.mark.parametrize("size", [3, 20, 100])
def test_a_route_that_is_cut_makes_nobody_suspect(looking: Looking, size: int) -> None:
    """Not even those whose last beats were the first of the interval: all others are late by then."""
    looking.crowd(size, spread=INTERVAL)

    now = 0.0
    while now < TTL:
        now += 0.25
        assert looking.look(now) == {}


def test_two_workers_are_never_many(looking: Looking) -> None:
    """As they are never a storm."""
    looking.crowd(2)

    assert len(looking.look(DUE)) == 2


def test_a_few_of_many_are_suspect_and_a_group_does_not_shield_another(looking: Looking) -> None:
    """Of twenty by one server ten die, which is less than 55 %; all by another fall silent, which says nothing."""
    names = looking.crowd(20)
    looking.crowd(20, via="n2")
    looking.beat(*names[10:], at=DUE)

    assert sorted(looking.look(DUE)) == names[:10]


def test_those_that_state_no_interval_are_not_counted(looking: Looking) -> None:
    """A hundred of whom nothing is known do not make four that are silent at once few."""
    looking.beat(*(f"x{number}" for number in range(100)), at=0.0, interval=None)
    looking.crowd(4)

    assert looking.look(DUE) == {}


def test_in_a_storm_nobody_becomes_suspect(looking: Looking) -> None:
    """Whatever is said of him; behind it, who is still silent does."""
    looking.beat("w", at=0.0, ttl=100.0)
    group = lease_of(looking.book, "w").group
    assert group is not None
    group.storm = Storm(since=0.0, members=3, quiet=3, longest_ttl=10.0)
    looking.suspects.probe_failed("w")

    assert looking.look(DUE) == {}
    group.storm = None
    assert looking.look(DUE + 1.0) == {"w": "silent"}


def test_many_of_whom_no_interval_is_known_that_fail_their_probes_are_not_believed(looking: Looking) -> None:
    """Where their lapse would be a storm."""
    names = [f"x{number}" for number in range(10)]
    looking.beat(*names, at=0.0, interval=None)
    looking.suspects.probe_failed(names[0])

    assert looking.look(9.5) == {}


# Costs.


def test_many_that_are_silent_are_not_gone_through_at_every_look(looking: Looking) -> None:
    """However many a cut route leaves silent, looking at them leaves time for all else."""
    looking.crowd(1_000)
    looking.look(DUE)
    walked = 0
    silent = looking.book.lines.silent

    def counted(now: float, after: object) -> object:
        nonlocal walked
        walked += 1
        return silent(now, after)  # type: ignore[arg-type]

    looking.book.lines.silent = counted  # type: ignore[assignment, method-assign]
    looking.look(DUE + 0.01)
    assert walked == 0
    looking.look(DUE + 1.0)
    assert walked > 0


def test_looking_at_those_that_beat_goes_through_none_of_them(looking: Looking) -> None:
    """Of a thousand that are well only the first of their line is looked at, whatever intervals others state."""
    looking.crowd(1_000, at=5.0)
    looking.beat("slow", at=1.0, interval=4.0)
    looked: list[str] = []

    class Watched(float):
        def __sub__(self, other: float) -> float:
            looked.append("look")
            return float(self) - other

    assert list(looking.book.lines.silent(Watched(6.0), lambda pace: 2 * pace)) == []
    assert len(looked) == 2


def test_strangers_cannot_make_lines_without_end() -> None:
    """Beyond so many, an interval that is new stands with those that state none."""
    lines = Lines()
    for number in range(2 * MOST_LINES):
        lines.new(f"w{number}", 10.0 + number // 90, 0.0, (10.0 + number % 90) / 10)

    # As many more as they state different ttls.
    assert len(lines) <= MOST_LINES + 2 * MOST_LINES // 90 + 1


@pytest.mark.parametrize("interval", [5e-324, 1e-12, 0.01, 0.1, 9.95, 9.96, 20.200000000000003, 1e5, 1e300])
def test_any_interval_is_one_of_a_few_paces(interval: float) -> None:
    """A little longer than stated, and what lies between counts for the same, so that it need not be looked up."""
    above, pace = pace_of(interval)

    assert above < min(interval, pace) <= pace
    assert pace_of(pace) == (above, pace)
    assert interval <= pace <= max(1.1 * interval, LEAST_PACE) or pace == MOST_PACE


@pytest.mark.parametrize("seed", range(5))
def test_against_a_naive_model(seed: int) -> None:
    """Whoever was silent for two of its latest intervals, of a few among many that beat, and nobody else."""
    chance, looking = random.Random(seed), Looking()
    names = [f"w{number}" for number in range(30)]
    intervals = [1.0, 2.0, 4.0, None]
    steady = [f"s{number}" for number in range(60)]
    known: dict[str, tuple[float, float | None]] = {}
    now = 0.0
    for _ in range(200):
        now += 0.25
        looking.beat(*steady, at=now, ttl=100.0)
        for name in chance.sample(names, 3):
            stated = chance.choice(intervals)
            before = known.get(name, (0.0, None))[1]
            known[name] = now, stated or before
            looking.beat(name, at=now, interval=stated, ttl=100.0)
        looking.suspects._look_at = -math.inf
        wanted = {name for name, (at, interval) in known.items() if interval and now - at >= 2 * interval}
        assert set(looking.look(now)) == wanted


@pytest.mark.parametrize("seed", range(5))
def test_a_group_knows_how_many_state_an_interval(seed: int) -> None:
    """Whoever joins, leaves, moves, states another interval or ttl, lapses and comes back."""
    chance, looking = random.Random(seed), Looking()
    names = [f"w{number}" for number in range(12)]
    for step in range(400):
        now = step * 0.25
        name = chance.choice(names)
        match chance.randrange(8):
            case 0:
                looking.book.forget(name)
            case 1:
                looking.book.lapse(now)
            case 2:
                looking.book.release(name, None, now)
            case _:
                looking.beat(
                    name,
                    at=now,
                    interval=chance.choice([None, 0.0, 1.0, 2.0]),
                    ttl=chance.choice([1.0, 5.0, 50.0]),
                    via=chance.choice(["n1", "n2"]),
                )
        for group in looking.storms.groups.values():
            of_it = [lease for lease in looking.book if lease.group is group]
            assert group.members == len(of_it)
            assert group.stating == sum(lease.line.pace > 0 for lease in of_it)


def test_late_is_before_suspect() -> None:
    """Else the first of a crowd would be suspect before the others are seen to be late."""
    assert 1.0 < LATE_INTERVALS < SUSPECT_INTERVALS
    # When the first of them was silent for two intervals, those that beat evenly were for one to two.
    assert (SUSPECT_INTERVALS - LATE_INTERVALS) * 100 >= 55
