"""The rule `goodbye` of `checker`, for who begins again: its goodbye ends the life before it, and none behind that."""

from collections.abc import Callable, Sequence
from typing import Any

from tests.simulation.rivals import LATE
from tests.simulation.workers import Worker


def ends_a_later_life(
    process: Worker, replica: Any, began: float, stood_still: Callable[[float, float], Sequence[float]]
) -> bool | None:
    """Say whether a goodbye of `process` was read behind the hello of the life that it ends; None: nobody can tell.

    Who hears late may hear of both lives at once.
    """
    lease = replica.book.get(process.name)
    told_at = None if lease is None or lease.ending is None else lease.ending.told_at
    greeted_at = None if process.again is None else process.again.heard_at(replica.ear)
    if not process.alive or greeted_at is None or told_at is None:
        return None
    in_time = began - replica.ear.free_at >= LATE and not stood_still(greeted_at - LATE, began)
    return bool(told_at > greeted_at and in_time)
