"""Hearing time: the clock of the book, and the argument why its silence may be believed. Pure: loop time is passed in.

A lease lapses when nothing was heard of its worker for a ttl. That is worth nothing while we could not have heard it,
so the book goes by a clock of its own, which moves only by proof:

1. The service publishes an echo to itself, with a secret and fresh token, on the very subscription that brings the
   heartbeats. A NATS server hands one subscriber what it accepted in the order in which it accepted it. So when the
   echo that was sent at s is heard, every beat that our server had accepted before s has been heard, too. Hearing time
   then moves to s: to what is proven, never to what is merely later, and never beyond our last send.
2. A token is heard once and cannot be guessed; who reads it on its way can only repeat it behind us. So nobody can move
   this clock but us.
3. An echo that took longer than `max_gap`, or was sent longer than that after the one before, proves less: a server
   that stood still lets our echo overtake beats that wait in the workers' sockets, and a process that stood still
   shared its machine, perhaps, with workers that did so too. That is a gap: hearing time stays where it is, and goes
   on with the first echo that was SENT after the gap was noticed. Every lease then has `gap_grace` of hearing left at
   least, for the beats that are still on their way.
4. Where beats may be lost and not only late (a new connection, a drop, the start), every lease is owed a full ttl.
5. Deafness in small pieces must not keep the dead alive: a lease lapses once it has been listened to for three ttls in
   all since its last beat, whatever the gaps. A worker that beats at least once in a ttl was heard by then, unless the
   gaps met every one of its beats.

3 to 5 cost the same however many leases there are: they are three numbers (`lines`).

A beat is noted by `stamp`: the hearing time at which it was heard at the latest, so that no promise is cut short by the
echo that has yet to prove it. In a stretch without a gap it is exact, because hearing time runs as fast as the loop's
clock there; in a gap it is at most `2 * max_gap` too late.

What this does not see: a route between two NATS servers that breaks. Our echo then still comes back from our own
server, and the workers at the other one are silent. That they fall silent together is what `storms` looks for.

Hearing time decides; it dates nothing. What is to become an instant of the database's clock is measured in real time
(`real_ago`), which goes on while we are deaf.
"""

import bisect
import enum
import math

# A lease of an hour that spans more of them is dated a little wrong, and nothing else.
GAPS_REMEMBERED = 10_000
# Echoes on their way. At the default interval these are 20 s, and the connection is given up long before.
ECHOES_REMEMBERED = 1_000


class Echo(enum.Enum):
    """What an echo that was heard did."""

    COUNTED = "counted"
    GAP = "gap"
    # Not ours, heard before, of an earlier connection, or sent before a gap was noticed.
    IGNORED = "ignored"


class Hearing:
    """The clock that the book goes by: `now`, in seconds of proven hearing since it was made.

    `max_gap` and `gap_grace` in seconds. `lost` is the loop's time that did not count, `gaps` how often that began.
    """

    def __init__(self, loop_time: float, *, max_gap: float, gap_grace: float = 0.0) -> None:
        self.now = 0.0
        self.lost = 0.0
        self.gaps = 0
        self._max_gap = max_gap
        self._gap_grace = gap_grace
        self._standing = False
        # What is proven, and the last sign of life from our server, in loop time. After a gap both are its end.
        self._proven_to = self._last_sign = loop_time
        self._last_stamp = 0.0
        # Loop time: what is heard now was not sent before it. The echo sent then came first; but what was still on its
        # way in a gap, for as long as the grace behind it, may have been sent before that.
        self.not_before = loop_time
        # The hearing time of that moment.
        self.least_stamp = 0.0
        self._last_heard_sent = loop_time
        self._late_until = -math.inf
        # The last gap began within the grace of the one before it.
        self._follows = False
        # Loop time: echoes sent before it belong to the last gap.
        self._gap_noticed = -math.inf
        self._sent: dict[bytes, float] = {}
        # Up to which stamp beats were heard before a gap, and how much time had not counted when it was over.
        self._gap_ends: list[tuple[float, float]] = []

    def sent(self, token: bytes, loop_time: float) -> None:
        """Note an echo before it is sent. `loop_time` must not be later than the sending."""
        self._sent[token] = loop_time
        if len(self._sent) > ECHOES_REMEMBERED:
            del self._sent[next(iter(self._sent))]

    def heard(self, token: bytes, loop_time: float) -> Echo:
        """Take an echo that came back."""
        sent = self._sent.get(token)
        if sent is None or not self._standing:
            return Echo.IGNORED
        # They come back in order: one that is missing by now was dropped.
        for earlier in list(self._sent):
            del self._sent[earlier]
            if earlier == token:
                break
        self._last_sign = loop_time
        before, self._last_heard_sent = self._last_heard_sent, sent
        if loop_time - sent > self._max_gap or sent - self._proven_to > self._max_gap:
            if sent <= self._gap_noticed:
                # One of many that waited through the same gap: it is over when the last of them is heard.
                self._go_on_after(loop_time)
                return Echo.IGNORED
            self._gap(loop_time, before)
            return Echo.GAP
        counts = sent > self._proven_to
        if counts:
            self.now += sent - self._proven_to
            self._proven_to = sent
        if sent >= self._late_until:
            self.not_before, self.least_stamp = sent, self.now
        return Echo.COUNTED if counts else Echo.IGNORED

    def stamp(self, loop_time: float) -> float:
        """Return the hearing time of a beat heard now: never before it was sent, nor before an earlier stamp."""
        # If the next echo counts, it was sent at most max_gap after the last and heard at most max_gap after that.
        ahead = loop_time - self._proven_to
        if ahead > 2 * self._max_gap:  # noqa: PLR1730 - for every heartbeat: a call costs as much as the rest
            ahead = 2 * self._max_gap
        stamp = self.now + ahead
        if stamp > self._last_stamp:  # noqa: PLR1730 - the same
            self._last_stamp = stamp
        return self._last_stamp

    def start(self, loop_time: float) -> None:
        """From now on the subscription stands: hearing goes on with the echoes sent from here on."""
        self._gap(loop_time, self._last_heard_sent)
        self._standing = True
        self._last_sign = loop_time

    def stop(self) -> None:
        """From now on nothing can be heard."""
        self._standing = False
        self._sent.clear()

    def deaf(self, loop_time: float) -> bool:
        """Say whether nothing is proven of what happens just now."""
        return not self._standing or loop_time - self._proven_to > 2 * self._max_gap

    def in_gap(self, loop_time: float) -> bool:
        """Say whether a gap has begun that no echo has told of yet: beats that came in it may lie unread.

        Without a subscription none does: they are lost.
        """
        return self._standing and loop_time - self._proven_to > self._max_gap

    def unanswered_for(self, loop_time: float) -> float:
        """Return for how many seconds no echo came back though the subscription stands; 0 when it does not."""
        return loop_time - self._last_sign if self._standing else 0.0

    def excuse(self, loop_time: float) -> None:
        """Count the silence of the connection from now on: before, nothing was asked of it."""
        self._last_sign = max(self._last_sign, loop_time)

    def real_ago(self, moment: float, loop_time: float) -> float:
        """Return how many seconds of real time have passed since hearing time was `moment`."""
        began = self._proven_to - self.now - self.lost
        return max(loop_time - (began + moment + self._lost_by(moment)), 0.0)

    def missed_since(self, moment: float, loop_time: float) -> bool:
        """Say whether there was anything since hearing time `moment` that did not count."""
        return self.deaf(loop_time) or self.lost > self._lost_by(moment)

    def _lost_by(self, moment: float) -> float:
        before = bisect.bisect_left(self._gap_ends, (moment,))
        return self._gap_ends[before - 1][1] if before else 0.0

    def _gap(self, loop_time: float, heard_to: float) -> None:
        self.gaps += 1
        # What was under way in a gap just before may still be; but not through a third one, and ever more of them.
        self._follows = heard_to < self._late_until and not self._follows
        if not self._follows:
            self.not_before, self.least_stamp = heard_to, self.now
        last = max(self._last_stamp, self.now)
        self._gap_ends.append((last, self.lost))
        del self._gap_ends[:-GAPS_REMEMBERED]
        # What is heard from here on bears a later stamp than all that was heard before the gap, if only just.
        self._last_stamp = math.nextafter(last, math.inf)
        self._gap_noticed = loop_time
        self._go_on_after(loop_time)

    def _go_on_after(self, loop_time: float) -> None:
        self._late_until = loop_time + self._gap_grace
        self.lost += max(loop_time - self._proven_to, 0.0)
        self._proven_to = max(loop_time, self._proven_to)
        self._gap_ends[-1] = (self._gap_ends[-1][0], self.lost)
