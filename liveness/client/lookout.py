"""Who looks at the clock for a worker, and says when it is lost."""

import asyncio
from collections.abc import Callable
from typing import Final

from liveness.client.fence import Fence
from liveness.client.pace import Pace
from liveness.client.problems import Problems, log
from liveness.errors import LostError

# The loop's clock stands still while the machine is suspended, and nothing wakes us when it is not any more. So nobody
# sleeps longer than this before looking at the worker's clock.
LOOK_SECONDS: Final = 1.0


class Lookout:
    """Sets `lost`, once in a life, when the time is up or somebody says so (`lose`). `on_lost` is called then.

    What it says is reckoned by the clock when it is asked, and may be asked by any thread; the rest is the loop's.
    """

    def __init__(
        self,
        worker: str,
        pace: Pace,
        problems: Problems,
        on_lost: Callable[[], object] | None,
        *,
        clock: Callable[[], float],
    ) -> None:
        self.lost: Final = asyncio.Event()
        self.loss: str | None = None
        self._worker = worker
        self._problems = problems
        self._on_lost = on_lost
        self._clock = clock
        self._fence = Fence(pace, clock())
        # When the last beat was sent that was taken, also of one that is lost.
        self._taken = clock()
        self._left = False
        self._looking: asyncio.TimerHandle | None = None

    @property
    def pace(self) -> Pace:
        """The durations in force."""
        return self._fence.pace

    @property
    def remaining(self) -> float:
        """The seconds until it is lost, 0 once it is or has left."""
        return 0.0 if self._left or self.lost.is_set() else self._fence.remaining(self._clock())

    @property
    def due_in(self) -> float:
        """The seconds until it is lost unless another beat is taken, also before the first."""
        return self._fence.due_in(self._clock())

    @property
    def grace(self) -> float:
        """The seconds until the ttl has run out."""
        return self._fence.grace(self._clock())

    def check(self, seconds: float, remaining: float) -> None:
        """Raise LostError unless more than `seconds` are `remaining`."""
        if remaining > seconds:
            return
        if self._left:
            why = "has said goodbye"
        elif self.loss is not None or self._fence.passed(self._clock()):
            why = self.loss or self._silence
        elif remaining > 0:
            why = f"has {remaining:.3g} s left, and {seconds:g} are asked for"
        else:
            why = "was not heard yet: NATS has taken none of its beats"
        raise LostError(f"worker {self._worker} {why}")

    def begin(self, began: float) -> None:
        """Look from here on at the time of a life that `began` then."""
        self._fence = Fence(self.pace, began)
        self._look_on()

    def again(self, sent: float) -> None:
        """Begin the next life, which was heard by what was sent at `sent`, and by all beats behind that."""
        sent = max(sent, self._taken)
        self._fence = Fence(self.pace, sent)
        self._fence.proven(sent, self._clock())
        self.loss = None
        self.lost.clear()
        self._look_on()

    def proven(self, sent: float) -> None:
        """Note that what was sent at `sent` was taken."""
        self._taken = max(sent, self._taken)
        self._fence.proven(sent, self._clock())
        self.look()

    def grant(self, ttl: float) -> bool:
        """Note which ttl (seconds) the service grants; return whether that takes more beats."""
        interval = self.pace.interval
        self._fence.pace = self.pace.granted(ttl)
        self._look_on()
        return self.pace.interval < interval

    def look(self) -> None:
        """Look at the clock."""
        if not self._left and self._fence.passed(self._clock()):
            self.lose(self._silence)

    def lose(self, why: str) -> None:
        """Say that the worker is lost, unless it is known."""
        if self.lost.is_set():
            return
        self.loss = why
        self._fence.lost = True
        self.lost.set()
        log.warning("worker %s %s: it has to stop", self._worker, why)
        self._problems.call("on_lost", self._on_lost)

    def leave(self) -> None:
        """Look no longer: the worker is about to say goodbye."""
        self._left = True
        if self._looking is not None:
            self._looking.cancel()

    @property
    def _silence(self) -> str:
        return f"had no beat taken by NATS for {self.pace.window:g} s of its ttl of {self.pace.ttl:g} s"

    def _look_on(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self.look()
        if not self._left and not self.lost.is_set():
            wait = min(self._fence.due_in(self._clock()), LOOK_SECONDS)
            self._looking = asyncio.get_running_loop().call_later(wait, self._look_on)
