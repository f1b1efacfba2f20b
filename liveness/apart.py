"""One that Postgres refuses must not hold up the others of its batch."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from liveness.errors import DatabaseRefusedError

Item = TypeVar("Item")

# Seconds after which what was refused is offered again. Usually somebody has to mend something first; and where two
# transactions only met at a bad moment, it is not long.
PAUSE = 10.0
# Beyond so many, those that have waited long enough and were never asked for again are forgotten.
REMEMBERED = 10_000


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
        self._until: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, name: str) -> bool:
        if name not in self._until:
            return False
        if self._until[name] > self._clock():
            return True
        del self._until[name]
        return False

    def add(self, name: str) -> None:
        """Let `name` wait."""
        if len(self._until) >= REMEMBERED:
            now = self._clock()
            self._until = {name: until for name, until in self._until.items() if until > now}
        self._until[name] = self._clock() + PAUSE
