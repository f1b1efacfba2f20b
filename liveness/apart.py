"""One that Postgres refuses must not hold up the others of its batch."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from liveness.errors import DatabaseRefusedError

Item = TypeVar("Item")

# Seconds after which what was refused is offered again. The first time two transactions may only have met at a bad
# moment; what is refused again and again has to be mended by somebody first, so it waits twice as long each time.
PAUSE_LEAST, PAUSE = 1.0, 10.0
# Beyond so many, those that have waited long enough and were never asked for again are forgotten.
REMEMBERED = 10_000
_NEVER = (-math.inf, 0.0, "")


async def apart(
    items: Sequence[Item], act: Callable[[Sequence[Item]], Awaitable[object]]
) -> list[tuple[Item, DatabaseRefusedError]]:
    """Do `act` with all of `items`, in as few batches as it takes, and return those refused, each with its error.

    A batch that is refused is halved until the guilty one stands alone. `act` has to be all or nothing; its other
    errors come through.
    """
    if not items:
        return []
    try:
        await act(items)
    except DatabaseRefusedError as error:
        if len(items) == 1:
            return [(items[0], error)]
        half = len(items) // 2
        return [*await apart(items[:half], act), *await apart(items[half:], act)]
    return []


class Refusals:
    """The names that are not offered again just now. `clock` is the loop's monotonic time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Until when, for how long that was, and why.
        self._until: dict[str, tuple[float, float, str]] = {}

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, name: str) -> bool:
        until, _, _ = self._until.get(name, _NEVER)
        return until > self._clock()

    def cause(self, name: str) -> str | None:
        """Return why `name` was refused lately, though it may be offered again by now; None if it was not."""
        until, _, cause = self._until.get(name, _NEVER)
        return cause if until + PAUSE > self._clock() else None

    def add(self, name: str, cause: str = "") -> None:
        """Let `name` wait: twice as long as the last time, if that was lately."""
        now = self._clock()
        if len(self._until) >= REMEMBERED:
            self._until = {name: one for name, one in self._until.items() if one[0] + PAUSE > now}
        until, paused, _ = self._until.get(name, _NEVER)
        pause = min(2 * paused, PAUSE) if until + PAUSE > now else PAUSE_LEAST
        self._until[name] = (now + pause, pause, cause)
