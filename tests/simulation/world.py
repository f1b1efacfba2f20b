"""Virtual time: one heap of things to come, one random source, and how coroutines run without a loop."""

import math
from collections.abc import Callable, Coroutine
from heapq import heappop, heappush
from random import Random
from typing import Any

from tests.simulation.habits import Habits, drawn

# What the second die's seeds differ in from the first one's, and the third's.
SECOND, THIRD = 1 << 40, 2 << 40
# Things that may happen in one schedule: far more than ever do, unless two duties wake each other for ever.
MOST = 1_000_000


class World:
    """The time, in seconds, and what is still to happen. `story` keeps lines when somebody wants to read them.

    A `plain` one has no habits (see there).
    """

    def __init__(self, seed: int, *, story: bool = False, plain: bool = False) -> None:
        self.now = 0.0
        self.random, self.more_random = Random(seed), Random(seed + SECOND)
        self.habits = Habits() if plain else drawn(self.more_random, Random(seed + THIRD))
        self.story: list[str] | None = [] if story else None
        self._heap: list[tuple[float, float, Callable[[], object] | None]] = []
        self._count = self._done = 0

    def at(self, moment: float, act: Callable[[], object]) -> None:
        """Do `act` at `moment`, behind whatever was put there before."""
        self._count += 1
        heappush(self._heap, (moment, self._count, act))

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Do `act` so many seconds from now."""
        self._count += 1
        heappush(self._heap, (self.now + seconds, self._count, act))

    def run(self, until: float) -> None:
        """Let everything happen that happens before `until`."""
        heap = self._heap
        # Behind all that happens at that moment: cheaper than a look at the front before each thing.
        heappush(heap, (until, math.inf, None))
        done = self._done
        while True:
            self.now, _, act = heappop(heap)
            if act is None:
                break
            act()
            done += 1
            if done > MOST:
                raise RuntimeError(f"it never ends: {MOST} things by {self.now:.2f} s")
        self._done = done

    def tell(self, line: str) -> None:
        """Add a line to the story, if there is one."""
        if self.story is not None:
            self.story.append(f"{self.now:8.2f}  {line}")


class Ask:
    """What a real part awaits: `begin(resume)` starts it, and `resume(value, error)` is called once, whenever."""

    __slots__ = ("begin",)

    def __init__(self, begin: Callable[[Callable[[Any, BaseException | None], None]], None]) -> None:
        self.begin = begin

    def __await__(self) -> Any:
        """Give itself to whoever drives the coroutine."""
        return (yield self)


def drive(work: Coroutine[Any, Any, Any], done: Callable[[Any, BaseException | None], None]) -> None:
    """Run a coroutine to its end, however long it waits, and tell what became of it."""
    # Most of them never wait.
    try:
        first = work.send(None)
    except StopIteration as stop:
        done(stop.value, None)
        return
    except Exception as failure:  # noqa: BLE001 - whoever runs the duty judges it
        done(None, failure)
        return

    def resume(value: Any, error: BaseException | None) -> None:
        while True:
            try:
                asked = work.send(value) if error is None else work.throw(error)
            except StopIteration as stop:
                done(stop.value, None)
                return
            except Exception as failure:  # noqa: BLE001 - whoever runs the duty judges it
                done(None, failure)
                return
            if asked is not None:
                asked.begin(resume)
                return
            # A bare turn of the loop.
            value, error = None, None

    if first is None:
        resume(None, None)
    else:
        first.begin(resume)
