"""How much of a silence in the host's tables counts: only what was while Postgres could be reached. Pure.

A worker that leaves its sign of life in Postgres, and not on NATS, can leave none while Postgres is away, nor while
all of us stand still. When that is over its silence is as long as the outage, and it lives. So:

1. We see Postgres' clock with every renewal of the lead and every try to take it, and while we are deaf and do neither:
   several times a second.
2. Of the time between two sights `APART` counts, and no more: the rest counts against nobody. Nor does it where that
   clock jumps ahead.
3. What was before the first sight counts. The sweep takes nothing before it has listened for a ttl, which is time
   enough for a sign of life.

All times are Postgres' own, in seconds: its ages are what this is about.
"""

from typing import Final

# The lead is renewed every 2 s at least (`leadership.INTERVAL_MOST`), and the answer takes its time. As so much counts
# however far apart two sights are, the dead are found while Postgres answers at all.
APART: Final = 2.5
# Outages that are remembered. Those of months, unless it is away for moments only and again and again.
REMEMBERED: Final = 1_000


class Reach:
    """When Postgres was seen. `outages`: how often it was out of sight until now."""

    def __init__(self) -> None:
        self.outages = 0
        self._seen_at: float | None = None
        # When it was back, and how much of the time before that does not count; in the order of time.
        self._lost: list[tuple[float, float]] = []

    def seen(self, at: float) -> None:
        """Note that its clock said `at`. One that was set back begins anew."""
        before = self._seen_at
        # Of two that ask at once, one may be told later what was seen earlier.
        if before is not None and before - APART <= at < before:
            return
        self._seen_at = at
        if before is None:
            return
        if at < before:
            self._lost = []
        elif at - before > APART:
            self.outages += 1
            self._lost.append((at, at - before - APART))
            del self._lost[:-REMEMBERED]

    def ago(self, seconds: float) -> float:
        """Return how long ago, in seconds, that was since which so many `seconds` that count have passed."""
        for back_at, lost in reversed(self._lost):
            if self._seen_at is None or self._seen_at - seconds >= back_at:
                break
            seconds += lost
        return seconds
