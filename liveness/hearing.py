"""Hearing time: the clock of the book. Pure: the loop's monotonic time is passed in.

Silence counts only while we could hear. Hearing time follows the loop's clock while the subscription stands, and
stops while it does not. A look that comes late adds no more than `MAX_STEP`: if this process was stalled or stopped,
the beats of that time wait in the socket, and they are read before many more looks go by.

What may have been lost, not only delayed, is another matter: after a reconnect every lease is owed a full ttl
(`LeaseTable.extend`).

Hearing time decides; it dates nothing. What is to become an instant of the database's clock is measured in real time
(`real_ago`), which goes on while we are deaf.
"""

import bisect

# Looks come every 0.25 s or sooner, so twice that means that the loop stood still, not that it was busy.
MAX_STEP = 0.5
# A lease of an hour that spans more of them is dated a little wrong, and nothing else.
GAPS_REMEMBERED = 10_000


class Hearing:
    """The clock that the book goes by, in seconds since it was made."""

    def __init__(self, loop_time: float) -> None:
        self.now = 0.0
        self.deaf = True
        # Seconds of the loop's time that did not count.
        self.lost = 0.0
        self._seen = loop_time
        # At which hearing time some real time did not count, and how much had not by then.
        self._gaps: list[tuple[float, float]] = []

    def advance(self, loop_time: float) -> float:
        """Let the time since the last look count as far as we could hear; return hearing time."""
        step = max(loop_time - self._seen, 0.0)
        self._seen = loop_time
        counted = 0.0 if self.deaf else min(step, MAX_STEP)
        if step > counted:
            self.lost += step - counted
            if self._gaps and self._gaps[-1][0] == self.now:
                self._gaps.pop()
            self._gaps.append((self.now, self.lost))
            del self._gaps[:-GAPS_REMEMBERED]
        self.now += counted
        return self.now

    def real_ago(self, moment: float) -> float:
        """Return how many seconds of real time have passed since hearing time was `moment`."""
        before = bisect.bisect_left(self._gaps, (moment,))
        lost_by_then = self._gaps[before - 1][1] if before else 0.0
        return (self.now + self.lost) - (moment + lost_by_then)

    def stop(self, loop_time: float) -> None:
        """From now on nothing can be heard."""
        self.advance(loop_time)
        self.deaf = True

    def start(self, loop_time: float) -> float:
        """From now on the subscription stands; return hearing time, from which beats are not lost."""
        self.advance(loop_time)
        self.deaf = False
        return self.now
