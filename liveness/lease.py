"""A lease, what a beat does to it, and why it ends. Pure."""

import enum
import functools
import math
from collections.abc import Mapping
from typing import Any

import msgspec

from liveness.group import Group
from liveness.messages import Heartbeat

# What the evidence holds beyond what is always there.
Details = Mapping[str, Any]


# Intervals (seconds) below and above are as good as these: 630 paces at most.
LEAST_PACE, MOST_PACE = 0.01, 100_000.0


class Heard(enum.Enum):
    """What a beat did."""

    STARTED = "started"
    RENEWED = "renewed"
    REVIVED = "revived"
    AFTER_PROOF = "after_proof"
    # A new incarnation ended the former one's life.
    RESTARTED = "restarted"
    # A new incarnation that does not say since when: the life goes on under its name.
    ADOPTED = "adopted"
    # Two incarnations beat under one name; told when it begins.
    CONFLICT = "conflict"
    # Of a former incarnation: nothing was renewed.
    STALE = "stale"


class Arrived(msgspec.Struct, frozen=True, gc=False):
    """When a beat came. Loop time: it was read at `arrival`, and NATS had not accepted it before `not_before`.

    `proven` is the hearing time up to which silence was proven then: whoever is said to have been silent was so by
    that, and not by the stamp of the beat, behind which in the socket there may be more.
    """

    arrival: float
    not_before: float
    proven: float


class Proof(msgspec.Struct, frozen=True, gc=False):
    """Word that a life is over: why, what the evidence keeps of it, and when it was read (loop time), if it was.

    `uptime` is how old (seconds) the incarnation was when it was said, where that is stated.
    """

    reason: str
    details: Details | None = None
    told_at: float | None = None
    uptime: float | None = None


RELEASED = Proof("released")


class Ending(msgspec.Struct, gc=False):
    """Why and since when a lease waits for the verdict on its epoch."""

    reason: str
    at: float
    proof: bool
    # The life that ends. The lease's own fields may already speak of the next one.
    incarnation: str | None
    last_beat: float | None
    deadline: float
    ttl: float
    # What the evidence holds beyond the fields above: an exit code, an operator's word, what a probe said.
    details: dict[str, Any] | None = None
    # Loop time: since when the next life is there. What was touched later is that life's.
    reborn_at: float | None = None
    # It may have begun as early as that, by a hello that was read late.
    reborn_after: float = -math.inf
    # Whether that was stated, and not merely when it was heard first.
    reborn_stated: bool = False
    # It holds nothing yet: it said hello first, and waits for the answer.
    reborn_idle: bool = False
    # It had no epoch when it ended: Postgres had not told us of it, or had never heard of it.
    unknown: bool = False
    # Told by heartbeats alone that another process is there; and the one that is over was heard since.
    by_beats: bool = False
    disputed: bool = False
    # Loop time: when the proof of it was read. Who has ended touches nothing any more.
    told_at: float | None = None
    # How old (seconds) its incarnation was when the proof of it was said, where that is stated.
    uptime: float | None = None
    # A storm has let it go: it is not asked again.
    let_go: bool = False
    # What the lease knew of the incarnation that it bore, should it bear that again.
    bore: str | None = None
    hello_uptime: float | None = None
    begun: float | None = None

    @property
    def greeted(self) -> bool:
        """Whether another process' hello was the end of it."""
        return self.reason == "restarted" and not self.by_beats

    def is_before(self, incarnation: str | None, hello_uptime: float | None) -> bool:
        """Say whether this is the end of a life before the one that is open by that hello of its own incarnation."""
        if self.uptime is None or hello_uptime is None:
            return False
        return incarnation == self.incarnation and self.uptime < hello_uptime


class Lease(msgspec.Struct, gc=False, eq=False):
    """Our belief that a worker lives."""

    # gc=False: a full collection over a million of them takes half a second, and the links are cut by hand.

    # As it stands in the subjects of its beats, which are found by it without being decoded.
    name: bytes
    line: "Line"
    previous: "Lease"
    next: "Lease"
    incarnation: str | None
    epoch: int | None
    # The ttl that the worker last stated, else the default; the promise in force is `line.ttl`.
    stated: float
    # From when the promise counts; differs from `last_beat` for a restored lease, which has none.
    since: float
    last_beat: float | None
    ending: Ending | None = None
    # By which NATS server it is heard; None until it is.
    group: Group | None = None
    # It answers probes, and has not been asked since its last beat.
    probe: bool = False
    # It begins nothing new, by its last beat, and leaves when it is done.
    draining: bool = False
    # The last epoch of a former life, if this is not the first that we know of.
    after: int | None = None
    # The incarnation before which all that former processes of the name held is, or will be, looked for.
    introduced: str | None = None
    # How old (seconds) it was, by its own clock, when it said the newest hello that was heard of it.
    hello_uptime: float | None = None
    # When it began (loop time), by the first of its words that stated an uptime; later than that, if it was under way
    # for long.
    begun: float | None = None

    def begin(self, beat: Heartbeat, now: float) -> None:
        """Take the first beat, heard at `now`."""
        self.incarnation, self.last_beat = beat.incarnation, now
        self.probe, self.draining = beat.probe, beat.draining

    def bear(self, incarnation: str | None, ended: Ending | None = None) -> None:
        """Bear that incarnation from now on; of another one nothing is known, but what was when its life `ended`."""
        if incarnation != self.incarnation:
            again = ended if ended is not None and ended.bore == incarnation else None
            self.incarnation = incarnation
            self.hello_uptime = None if again is None else again.hello_uptime
            self.begun = None if again is None else again.begun

    def bear_since(self, beat: Heartbeat, when: Arrived) -> None:
        """Bear the incarnation of `beat` from now on, and note what that says of its beginning."""
        self.bear(beat.incarnation)
        self.note_begun(beat.uptime, when.not_before)

    def note_begun(self, uptime: float | None, sent: float) -> None:
        """Note that its incarnation stated that uptime at loop time `sent`, if it is the first time."""
        if uptime is not None and self.begun is None:
            self.begun = sent - uptime

    def is_younger_than(self, begun: float) -> bool:
        """Say whether its incarnation began surely later than `begun` (loop time).

        Surely is more than a ttl later: so long may its first word have been under way.
        """
        return self.begun is not None and begun < self.begun - self.line.ttl

    def certified(self, epoch: int, incarnation: str | None) -> "Lease | None":
        """Return this lease, which ends under `epoch` from now on, if that is its incarnation's whose process died.

        That process has lost an epoch and got this one, and nobody told us: it is as dead under either.
        """
        ending = self.ending
        if ending is None or ending.reason != "died" or ending.reborn_at is not None:
            return None
        if incarnation is None or incarnation != ending.incarnation:
            return None
        self.after, self.epoch = self.epoch, epoch
        return self

    def note_hello(self, uptime: float | None, sent: float) -> bool:
        """Note what a hello of its incarnation states, and say whether Postgres does not know that of an open life."""
        self.note_begun(uptime, sent)
        return self.note_newest(uptime) and self.epoch is not None

    def note_newest(self, uptime: float | None) -> bool:
        """Note that its incarnation said hello at that uptime, unless a newer one is known; say whether it is news."""
        if uptime is None or (self.hello_uptime is not None and uptime <= self.hello_uptime):
            return False
        self.hello_uptime = uptime
        return True

    def has_begun_since(self, uptime: float | None) -> bool:
        """Say whether its incarnation has said hello when it was older than `uptime`, as far as both are stated."""
        return uptime is not None and self.hello_uptime is not None and uptime < self.hello_uptime

    @property
    def worker(self) -> str:
        """The worker's name."""
        return self.name.decode()

    @property
    def ttl(self) -> float:
        """Seconds of the promise in force."""
        return self.line.ttl


class Line(msgspec.Struct, gc=False, eq=False):
    """The leases whose promise in force is `ttl` seconds, in the order of their beats.

    Their workers state intervals above `above` and up to `pace` seconds; both are 0 for those that state none.
    """

    ttl: float
    # A sentinel: its `next` is the lease that lapses first, its `previous` the one that beat last.
    end: Lease
    pace: float = 0.0
    above: float = 0.0


# A start asks for a million leases, and workers state few different ones; whoever states many gains nothing.
@functools.lru_cache(maxsize=4_096)
def rounded_ttl(ttl: float) -> float:
    """Return `ttl` (seconds, above 0) rounded up to three significant digits.

    It bounds the number of lines whatever ttls workers state, and a promise is never made shorter by it.
    """
    return _rounded_up(ttl, _step(ttl, 3))


@functools.lru_cache(maxsize=4_096)
def pace_of(interval: float) -> tuple[float, float]:
    """Return between which intervals (above, up to; seconds) a stated one is taken for the longer: two digits of it.

    One that is not above 0 says nothing, and both are 0.
    """
    if interval <= 0:
        return 0.0, 0.0
    if interval <= LEAST_PACE:
        return 0.0, LEAST_PACE
    interval = min(interval, MOST_PACE)
    pace = _rounded_up(interval, _step(interval, 2))
    return pace - _step(pace, 2), pace


def _step(seconds: float, digits: int) -> float:
    return float(10.0 ** (math.floor(math.log10(seconds)) - digits + 1))


def _rounded_up(seconds: float, step: float) -> float:
    # The subtrahend keeps 2.3 from becoming 2.31 by the last bit of a division.
    return round(math.ceil(seconds / step - 1e-9) * step, 9)


def ending_of(lease: Lease, now: float, deadline: float, proof: Proof | None) -> Ending:
    """Return why the life of `lease` ends, by what it says of it at hearing time `now`; without proof, it lapsed."""
    details = None if proof is None else proof.details
    return Ending(
        reason="lapsed" if proof is None else proof.reason,
        at=now,
        proof=proof is not None,
        told_at=None if proof is None else proof.told_at,
        uptime=None if proof is None else proof.uptime,
        incarnation=lease.incarnation,
        last_beat=lease.last_beat,
        deadline=deadline,
        ttl=lease.line.ttl,
        unknown=lease.epoch is None,
        bore=lease.incarnation,
        hello_uptime=lease.hello_uptime,
        begun=lease.begun,
        # A copy, which may be added to.
        details=dict(details) if details else None,
    )


def note_reborn(ending: Ending, beat: Heartbeat, when: Arrived, successor: str | None) -> bool:
    """Note since when the life behind `ending` is there: what it has touched is not taken.

    Return whether this is for the sake of another process than the `successor` that said hello: what is spared then may
    be older than that one.
    """
    if ending.greeted and beat.incarnation not in {None, successor}:
        # The successor said hello, and so that all others are over; but a hello that was read late says nothing of who
        # has begun since it may have been sent.
        if beat.uptime is None or when.arrival - beat.uptime < ending.reborn_after:
            return False
        _begin_by(ending, when.not_before - beat.uptime, idle=False)
        return True
    stated = beat.incarnation != ending.incarnation and beat.uptime is not None
    if beat.uptime is None or not stated:
        # A straggler of the process that ended says nothing of the next one's beginning.
        begun = when.arrival
    else:
        # A first sight of it errs on the side of the living; later ones must not move it by a slowness of ours.
        begun = (when.arrival if ending.reborn_stated else when.not_before) - beat.uptime
    ending.reborn_stated |= stated
    _begin_by(ending, begun, idle=ending.reborn_idle and beat.incarnation == successor)
    return False


def _begin_by(ending: Ending, begun: float, *, idle: bool) -> None:
    if ending.reborn_at is None or begun < ending.reborn_at:
        ending.reborn_at, ending.reborn_idle = begun, idle


def note_other(ending: Ending, beat: Heartbeat, *, stale: bool) -> None:
    """Note a beat of another process than the one whose beginning was the end of this life.

    If that was told by heartbeats alone, it is disputed: this may be the one that was thought over, or a third.
    """
    # One that was over before is no news.
    ending.disputed |= ending.by_beats and (not stale or beat.incarnation == ending.incarnation)
