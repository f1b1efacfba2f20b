"""When a process began, by what its beats say. Pure: loop time and hearing time are passed in.

When a process began is the least (arrival - uptime) of its beats: durations, never the worker's own clock. A beat that
was delivered late makes that look later than it was, and then rows which the new process has claimed already would look
older than it. So:

1. A beginning counts only once two beats agree on it to a second (`AGREED_WITHIN`). They must lie further apart than
   that (`APART`): of two that waited in one socket and came at once, the beginnings differ by as much as the beats do.
2. Of those that agree, not the arrival counts but the echo that was heard last before it, for NATS had not accepted the
   beat before that; and of two, the earlier: so no slowness of ours makes a beginning look later than it was.
3. Where that is known only roughly (we stood still, or the beat was under way in a gap), a better one is waited for,
   but for a ttl at most; and what was acted upon is acted upon again when it is known better.
"""

import math

import msgspec

from liveness.lease import Arrived, Ending

# Two beats of one process differ by what the network does to them, not by more. The contract's number.
AGREED_WITHIN = 1.0
APART = 2 * AGREED_WITHIN
# Processes of one name that are remembered beside the two that are followed, a kilobyte each: of more names than that
# where something is claimed, only the newest few, for whoever invents names can have many processes in each. Of a
# process that is forgotten nothing is known, and so nothing is taken for it.
THIRDS_REMEMBERED = 8
CLAIMS_MANY = 1_000
NEWEST_THIRDS = 2


class Arrival(msgspec.Struct, frozen=True):
    """An incarnation that began at `begun` (loop time), of a name whose former life is not known here.

    `begun` is as exact as the worker's clock and ours are to the database's over that time, so it does not keep.
    """

    incarnation: str
    begun: float
    # It said hello, and waits for its answer: no epoch before it is known what a former life has left.
    greeted: bool = False
    # It may have begun as early as that: its hello may have waited. None: that is `begun`.
    earliest: float | None = None
    # It holds nothing: it said hello before anything else was heard of it.
    idle: bool = False

    def ends(self, ending: Ending, former: str | None, heard_at: float | None) -> None:
        """Note in `ending` that this ends the `former` incarnation, heard last at hearing time `heard_at`."""
        ending.last_beat, ending.incarnation = heard_at, former
        ending.reborn_at, ending.reborn_stated, ending.reborn_idle = self.begun, True, self.idle
        ending.reborn_after = self.begun if self.earliest is None else self.earliest
        ending.by_beats = not self.greeted


def thirds_most(claims: int) -> int:
    """Return how many processes of a name are remembered beside the two, where so many names have `claims`."""
    return THIRDS_REMEMBERED if claims <= CLAIMS_MANY else NEWEST_THIRDS


class Claim(msgspec.Struct):
    """An incarnation that beats beside the one that the lease bears, or of whose beginning nothing is settled yet."""

    incarnation: str
    # Loop time: when this was begun; and hearing time of its last beat.
    since: float
    heard_at: float
    # Loop time, by those of its beats that agree: not before its beginning; not after it, to a second; not after it.
    latest: float = math.inf
    surely: float = math.inf
    roughly: float = -math.inf
    # Hearing time of the beat that others have to agree with.
    shown_at: float | None = None
    # The latest beginning that it allows; and of those that agree it and the latest by the echo before, with uptimes.
    anchor: float | None = None
    first: tuple[float, float] = (-math.inf, math.inf)
    best: tuple[float, float] = (-math.inf, math.inf)
    agreed: bool = False
    # It was acted upon by this beginning, which was known only roughly: once more whenever it is known better.
    acted_by: float | None = None
    # Whether it was heard since it was put beside another: if not, it may be over.
    beats: int = 1
    # Hearing time of the last beat of any other incarnation, since this one is heard.
    rival_at: float | None = None
    # Hearing time of the last beat of the incarnation that the lease bears.
    own_at: float | None = None
    # And what others claim that were heard beside both; whoever is claimed next has to know of them.
    thirds: "dict[str, Claim]" = {}

    def heard(self, now: float, when: Arrived, uptime: float | None) -> None:
        """Take one of its beats: `now` in hearing time."""
        self.heard_at = now
        if uptime is None:
            return
        latest, begun = when.arrival - uptime, when.not_before - uptime
        if self.anchor is None and self.agreed and 0.0 <= latest - self.surely <= AGREED_WITHIN:
            # What was known of it before it was disputed, to a second: this agrees.
            self.anchor, self.shown_at, self.latest = latest, now, latest
            self.first = self.best = begun, uptime
        elif self.anchor is None or latest < self.anchor - AGREED_WITHIN:
            # Those before it were late, and what they showed is worth nothing.
            self.anchor, self.shown_at, self.agreed = latest, now, False
            self.latest, self.surely, self.roughly = latest, math.inf, begun
            self.first = self.best = begun, uptime
        if abs(latest - self.anchor) > AGREED_WITHIN:
            return
        self.latest = min(self.latest, latest)
        # The best one may have come just now; then the first one has to do.
        other, at_uptime = self.best if uptime - self.best[1] > APART else self.first
        if uptime - at_uptime > APART:
            # One may have come to NATS as late as the other one came to us: they show what both of them show.
            both = min(begun, other)
            self.roughly, self.agreed = max(self.roughly, both) if self.agreed else both, True
            if self.latest - self.roughly <= AGREED_WITHIN:
                self.surely = min(self.surely, self.roughly)
        if begun > self.best[0] and self.latest - self.best[0] > AGREED_WITHIN:
            # One that shows it to a second stays: each that is better by a trifle would have the next ones wait anew.
            self.best = begun, uptime

    @property
    def begun(self) -> float:
        """Loop time: its beginning, or a little before; infinite while no beat has shown it."""
        if self.surely == self.latest == math.inf:
            return math.inf
        # The echo before a beat that was late may be as late.
        return min(self.latest, self.surely if self.surely < math.inf else self.roughly)

    def is_younger_than(self, begun: float, ttl: float) -> bool:
        """Say whether it began surely later than `begun` (loop time): more than a ttl, as `Lease` has it."""
        return begun < self.begun - ttl < math.inf

    def is_beside(self, incarnation: str, proven: float, ttl: float) -> bool:
        """Say whether it is another one, which is still heard."""
        return self.incarnation != incarnation and self.beats > 0 and proven - self.heard_at < ttl

    def holds(self, proven: float, ttl: float) -> bool:
        """Say whether it may be acted upon: two of its beats agree, and its rivals are silent for a ttl.

        One whose beginning is known roughly waits for a beat that shows it to a second, but not for longer than a ttl:
        what a former process has touched since would stay. Where no such beat ever comes, a better one has to do.
        """
        if self.acted_by is None:
            waited = self.shown_at is None or proven - self.shown_at >= ttl
        else:
            waited = self.begun - self.acted_by > AGREED_WITHIN
        exact = self.surely < math.inf or waited
        return self.agreed and exact and (self.rival_at is None or proven - self.rival_at >= ttl)
