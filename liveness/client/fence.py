"""When a worker has to consider itself lost, by its own clock. Pure: `now` is an argument, all of one worker's clock.

The service takes work from nobody before the ttl has run out since it, or NATS before it, took the last beat. A worker
cannot know when that was, only that it was not before the beat was sent. So it counts from there, and only beats count
that NATS has provably taken. The rules that this file keeps:

1. The time runs from the moment before the beat was sent, never from that of the answer.
2. Lost is lost. An answer that is read when the time was up already changes nothing, though the beat was taken in time:
   whoever has looked at the clock meanwhile has stopped by it. So what `passed` says depends on nobody's looking.
3. Before the first beat nothing was promised, so nothing remains; but it is not lost before a whole window has passed,
   since it may have claimed all the same.
"""

from liveness.client.pace import Pace


class Fence:
    """The time of one life, which `began` then."""

    def __init__(self, pace: Pace, began: float) -> None:
        self.pace = pace
        self.lost = False
        self._began = began
        self._proven: float | None = None

    def proven(self, sent: float, now: float) -> None:
        """Note that the beat sent at `sent` was taken, as is known at `now`."""
        self.passed(now)
        if not self.lost:
            self._proven = sent if self._proven is None else max(sent, self._proven)

    def passed(self, now: float) -> bool:
        """Say whether it is lost, once and for all."""
        self.lost = self.lost or now >= self._since + self.pace.window
        return self.lost

    def due_in(self, now: float) -> float:
        """Return the seconds until it is lost unless another beat is taken."""
        return max(0.0, self._since + self.pace.window - now)

    def remaining(self, now: float) -> float:
        """Return the seconds for which it may rely on its lease; 0 when there is none, or not any more."""
        return 0.0 if self.lost or self._proven is None else self.due_in(now)

    def grace(self, now: float) -> float:
        """Return the seconds until its work may be given away."""
        return max(0.0, self._since + self.pace.ttl - now)

    @property
    def _since(self) -> float:
        return self._began if self._proven is None else self._proven
