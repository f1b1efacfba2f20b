"""The short way in does what the long way does, or leaves it to that."""

import dis
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveness.group import Storm
from liveness.intake import Intake
from liveness.lease import Lease
from liveness.leases import LeaseTable
from liveness.lines import Lines
from liveness.messages import SHORT
from liveness.renewals import Renewals
from liveness.reports import Reports
from liveness.settings import Settings
from liveness.storms import Storms
from liveness.wakes import Wakes
from liveness.wire import VAIN_MOST, Incoming, run_of
from tests.unit.makers import Ears, lease_of

SETTINGS = Settings(min_ttl=1.0, max_ttl=100.0)
SID = 7


def message(subject: str, payload: bytes, words: str = str(SID)) -> bytes:
    """Return what a server sends of a message."""
    return f"MSG {subject} {words} {len(payload)}\r\n".encode() + payload + b"\r\n"


def heartbeat(worker: str, payload: bytes = b"", **fields: Any) -> bytes:
    """Return what a server sends of a heartbeat."""
    return message(f"liveness.heartbeat.{worker}", json.dumps(fields).encode() if fields else payload)


class Door:
    """The bytes of a connection come in here, by the short way where there is one."""

    def __init__(self, *, short: bool) -> None:
        self.ears = Ears()
        self.book = LeaseTable(60.0)
        self.storms = Storms(max_hold=600.0, shuffle=lambda _: None)
        self.wakes = Wakes()
        self.reports = Reports(leak_grace=60.0, wedge_after=10.0)
        self.incoming = Incoming()
        # How many messages came the long way.
        self.long = 0
        self.intake = Intake(
            book=self.book,
            hearing=self.ears.hearing,
            storms=self.storms,
            settings=SETTINGS,
            clock=lambda: self.ears.time,
            wakes=self.wakes,
            on_echo=self._echo,
        )
        self.intake.reports = self.reports
        self.renewals = Renewals(
            book=self.book,
            hearing=self.ears.hearing,
            settings=SETTINGS,
            clock=lambda: self.ears.time,
            counts=self.intake.counts,
            reports=self.reports,
        )
        pattern = run_of("liveness.heartbeat.>", SID, SHORT)
        if short:
            self.incoming.run = lambda data, at: (
                self.renewals.take(iter(pattern.scanner(data, at).match, None)) or at  # type: ignore[attr-defined]
            )

    def come(self, *messages: bytes) -> None:
        """Let bytes come off the socket at once."""
        for _, subject, reply, _, payload in self.incoming.read(b"".join(messages)):
            self.long += 1
            way = self.intake.goodbye if b".goodbye." in subject else self.intake.heartbeat
            way(subject.decode(errors="replace"), payload, reply.decode(errors="replace"))

    def _echo(self, token: bytes) -> None:
        self.ears.hearing.heard(token, self.ears.time)

    def state(self) -> Any:
        """Everything that a heartbeat may change."""
        return (
            {lease.worker: self._lease(lease) for lease in self.book},
            [lease.worker for lease in self.book.soonest()],
            [list(names) for names in (self.book.wanting, self.book.changed, self.book.endings, self.book.arrivals)],
            {worker: repr(claim) for worker, claim in self.book.incarnations.claims.items()},
            {via: (group.members, group.stating, repr(group.storm)) for via, group in self.storms.groups.items()},
            (repr(self.reports.of), list(self.reports.standing), self.reports.refused, self.reports._size),
            self.intake.counts,
            self.ears.hearing.stamp(self.ears.time),
            [event.is_set() for event in (self.wakes.lives, self.wakes.arrivals, self.wakes.endings)],
        )

    def _lease(self, lease: Lease) -> Any:
        group = lease.group
        return (
            lease.line.ttl, lease.line.pace, lease.stated, lease.since, lease.last_beat, lease.incarnation, lease.epoch,
            lease.probe, lease.draining, None if group is None else group.via, repr(lease.ending),
        )  # fmt: skip


@pytest.fixture
def door() -> Door:
    """`w` has said hello as "a", with a ttl of 10 s, by the server "V", and had its answer."""
    door = Door(short=True)
    door.intake.hello("liveness.hello.w", json.dumps({"incarnation": "a", "ttl": 10, "via": "V"}).encode())
    door.book.arrived("w", "a")
    door.book.granted("w", 1)
    door.ears.listen(1.0)
    door.long = 0
    return door


def test_a_beat_that_only_renews_goes_the_short_way(door: Door) -> None:
    """It renews the lease, wherever it stands among others."""
    beat = heartbeat("w", incarnation="a", ttl=10, via="V", seq=2, uptime=1.5, running=["x"])
    door.come(beat, heartbeat("new"), beat, message("liveness.goodbye.other", b""), beat)

    assert door.long == 2
    assert lease_of(door.book).since == 1.0
    assert door.intake.counts["heartbeats"] == 4


def test_a_beat_without_a_payload_goes_the_short_way() -> None:
    """Who says nothing of himself is renewed as well."""
    door = Door(short=True)
    door.come(heartbeat("w"))
    door.ears.listen(1.0)
    door.come(heartbeat("w"))

    assert (door.long, lease_of(door.book).since) == (1, 1.0)


@pytest.mark.parametrize(
    "beat",
    [
        heartbeat("other", incarnation="a", ttl=10, via="V"),
        heartbeat("w", incarnation="b", ttl=10, via="V"),
        heartbeat("w", ttl=10, via="V"),
        heartbeat("w", incarnation="a", ttl=11, via="V"),
        heartbeat("w", incarnation="a", ttl=10, via="W"),
        heartbeat("w", incarnation="a", ttl=10, via="V", interval=2),
        heartbeat("w", incarnation="a", ttl=10, via="V", uptime=-1),
        heartbeat("w", incarnation="a", ttl=10, via="V", seq=2**63),
        heartbeat("w", incarnation="a", ttl=10, via="V", running=[1]),
        heartbeat("w", b"\xff"),
        heartbeat("w", b'{"incarnation": "a"'),
        heartbeat("w", b'{"incarnation": "a"}\r'),
        heartbeat("w", json.dumps({"incarnation": "a", "more": "x" * SHORT}).encode()),
        message("liveness.heartbeat.w", b'{"incarnation": "a"}', f"{SID} _INBOX.x"),
    ],
)
def test_whatever_else_goes_the_long_way(door: Door, beat: bytes) -> None:
    """There every rule stands."""
    door.come(beat)

    assert door.long == 1


@pytest.mark.parametrize("short", [True, False])
def test_a_payload_is_as_long_as_the_server_says(*, short: bool) -> None:
    """And not up to the next CR LF: what is in it is no message."""
    door = Door(short=short)
    door.come(heartbeat("w"), heartbeat("x"))
    door.ears.listen(1.0)
    door.come(heartbeat("w", b"\r\n" + heartbeat("x")), heartbeat("w", b'{"probe":true}'))

    assert lease_of(door.book, "x").since < 1.0
    assert lease_of(door.book, "w").probe
    assert door.intake.counts["heartbeats"] == 4


def _held(door: Door) -> None:
    group = lease_of(door.book).group
    assert group is not None
    group.storm = Storm(since=1.0, members=3, quiet=3, longest_ttl=10.0)


@pytest.mark.parametrize(
    "befall",
    [
        lambda door: door.book.lapse(100.0),
        lambda door: door.intake.heartbeat("liveness.heartbeat.w", b'{"incarnation": "b", "uptime": 0.5}'),
        lambda door: setattr(lease_of(door.book), "last_beat", None),
        lambda door: setattr(lease_of(door.book), "group", None),
        _held,
    ],
)
def test_a_beat_that_somebody_waits_for_goes_the_long_way(door: Door, befall: Callable[[Door], Any]) -> None:
    """One that revives, that belongs to one of two, that is the first, or that ends the hold of a storm."""
    befall(door)

    door.come(heartbeat("w", incarnation="a", ttl=10, via="V"))

    assert door.long == 1


def test_a_run_that_takes_nothing_leaves_no_mark_on_hearing_time(door: Door) -> None:
    """Else an echo behind a pause would find that somebody was heard after it."""
    door.ears.wait(10.0)
    before = door.ears.hearing._last_stamp

    assert door.renewals.take(iter(())) == 0
    assert door.ears.hearing._last_stamp == before


def test_runs_that_take_nothing_are_given_up_for_the_rest_of_a_read(door: Door) -> None:
    """To try costs as much as a beat; what is read next is tried again."""
    tries: list[int] = []
    run = door.incoming.run
    assert run is not None

    def counted(data: bytes, at: int) -> int:
        tries.append(at)
        return run(data, at)

    door.incoming.run = counted
    door.come(*[heartbeat("w", b"{")] * 100)
    first = len(tries)
    beat = heartbeat("w", incarnation="a", ttl=10, via="V")
    door.come(beat, beat)

    assert (first, door.long) == (VAIN_MOST, 100)
    assert len(tries) > first


_payloads = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "incarnation": st.sampled_from(["a", "b", "", None]),
            "ttl": st.sampled_from([10, 10.0, 50.0, 0.1, 1000.0, 12.345, None]),
            "uptime": st.sampled_from([0.5, 3.0, 1e9, -1]),
            "seq": st.sampled_from([1, 2**63, 1.5]),
            "probe": st.sampled_from([True, False, 1]),
            "draining": st.sampled_from([True, False, 1]),
            "via": st.sampled_from(["V", "W", "x" * 200]),
            "interval": st.sampled_from([2, 2.0, 1.96, 5, 0, -1, 5e-324, 1e300, None]),
            "running": st.sampled_from([[], ["x"], ["x", "y"], [1], "x", None]),
            "progress": st.sampled_from([0, 1, 2**63, None]),
        },
    ).map(lambda fields: json.dumps(fields).encode()),
    st.sampled_from([b"", b"{", b"\r\n", b"\xff", b"[1e300]"]),
)
_messages = st.one_of(
    st.builds(heartbeat, st.sampled_from(["w", "x", "a.b", "wörker", "$liveness.x", "a..b"]), _payloads),
    st.builds(lambda worker, payload: message(f"liveness.goodbye.{worker}", payload), st.just("w"), _payloads),
)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.25, 2.0, 30.0]), st.lists(_messages, min_size=1, max_size=8), st.integers(0, 200)),
        max_size=8,
    )
)
def test_both_ways_lead_to_the_same_book(reads: list[tuple[float, list[bytes], int]]) -> None:
    """Whatever comes, however it is cut into reads, and whatever lapses meanwhile."""
    doors = [Door(short=True), Door(short=False)]
    for door in doors:
        for seconds, messages, cut in reads:
            door.ears.listen(seconds)
            door.book.lapse(door.ears.now)
            data = b"".join(messages)
            door.come(data[:cut])
            door.come(data[cut:])

    assert doors[0].state() == doors[1].state()


def test_a_renewal_costs_few_calls(door: Door) -> None:
    """A message object, a string or a task for each would be more: so fast is only what does so little."""
    beats = [heartbeat("w", incarnation="a", ttl=10, via="V", seq=seq) for seq in range(1000)]
    calls = {"call": 0, "c_call": 0}

    def count(_frame: object, event: str, _what: object) -> None:
        if event in calls:
            calls[event] += 1

    data = b"".join(beats)
    sys.setprofile(count)
    try:
        door.come(data)
    finally:
        sys.setprofile(None)

    assert door.long == 0
    # By Python: the renewal. By C: the groups of the match, the lease by its name, the decoding; the matching and the
    # two lengths are not seen.
    assert calls["call"] / len(beats) < 1.1
    assert calls["c_call"] / len(beats) < 4.1


@pytest.mark.parametrize("step", [Renewals.take, Lines.renew])
def test_a_renewal_builds_nothing(step: Callable[..., object]) -> None:
    """No list, tuple, dict, text or function for each heartbeat, which no call would show."""
    made = [
        each.opname for each in dis.get_instructions(step) if each.opname.startswith(("BUILD_", "MAKE_", "FORMAT_"))
    ]
    assert made == []
