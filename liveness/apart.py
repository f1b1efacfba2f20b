"""One that Postgres refuses must not hold up the others of its batch: halve the batch until it stands alone."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from liveness.errors import DatabaseRefusedError

Item = TypeVar("Item")


async def apart(
    items: Sequence[Item], act: Callable[[Sequence[Item]], Awaitable[object]]
) -> list[tuple[Item, DatabaseRefusedError]]:
    """Do `act` with all of `items`, in as few batches as it takes, and return those refused, each with its error.

    `act` has to be all or nothing. Its other errors come through.
    """
    try:
        await act(items)
    except DatabaseRefusedError as error:
        if len(items) == 1:
            return [(items[0], error)]
        half = len(items) // 2
        return [*await apart(items[:half], act), *await apart(items[half:], act)]
    return []
