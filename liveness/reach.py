"""How much of a silence in the host's tables counts: only what was while Postgres was seen. Pure.

A worker that leaves its sign of life in Postgres, and not on NATS, can leave none while Postgres is away, nor while
all of us stand still. When that is over its silence is as long as the outage, and it lives. So:

1. We see Postgres' clock with every renewal of the lead and every try to take it, and while we are deaf and do neither:
   no more than some 2 s apart.
2. Of the time between two sights `APART` counts, and no more: the rest counts against nobody. Nor does it where that
   clock jumps ahead.
3. Where it was set back, all that is older is as much younger by it. An answer that comes late looks like that, too.
4. What was before the first sight counts. The sweep takes nothing before it has listened for a ttl, which is time
   enough for a heartbeat, but not for a row that is touched once in hours.

All times are Postgres' own, in seconds: its ages are what this is about.
"""

from typing import Final

# The lead is renewed no less than every 2 s (`leadership.INTERVAL_MOST`); one renewal may fail, and answers take their
# time. As so much counts however far apart two sights are, the dead are found while Postgres answers at all.
APART: Final = 5.0
# Outages that are told apart; older ones are one.
REMEMBERED: Final = 1_000


class Reach:
    """When Postgres was seen. `outages`: how often it was out of sight until now."""

    def __init__(self) -> None:
        self.outages = 0
        self._seen_at: float | None = None
        # When it was back, and how much of the time before that does not count; in the order of time.
        self._lost: list[tuple[float, float]] = []

    def seen(self, at: float) -> None:
        """Note that its clock said `at`."""
        before = self._seen_at
        # Of two that ask at once, one may be told later what was seen earlier.
        if before is not None and before - APART <= at < before:
            return
        self._seen_at = at
        if before is None:
            return
        if at < before:
            self._set_back(before - at)
        elif at - before > APART:
            self.outages += 1
            self._lost.append((at, at - before - APART))
            if len(self._lost) > REMEMBERED:
                (_, oldest), (back_at, next_to_it) = self._lost[:2]
                self._lost[:2] = [(back_at, oldest + next_to_it)]

    @property
    def back_for(self) -> float:
        """For how many seconds it is back since it was out of sight; 0 where it never was."""
        return 0.0 if self._seen_at is None or not self._lost else self._seen_at - self._lost[-1][0]

    def ago(self, seconds: float) -> float:
        """Return how long ago, in seconds, that was since which so many `seconds` that count have passed."""
        for back_at, lost in reversed(self._lost):
            if self._seen_at is None or self._seen_at - seconds >= back_at:
                break
            seconds += lost
        return seconds

    def _set_back(self, by: float) -> None:
        # All that was before is as much younger by that clock, so as much less has to be left out.
        left = by
        moved = []
        for back_at, lost in reversed(self._lost):
            off = min(left, lost)
            left -= off
            moved.append((back_at - by, lost - off))
        self._lost = moved[::-1]
