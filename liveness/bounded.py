"""Work that has to end: within a time whatever it does, and when it is cancelled."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

# For what was cancelled to notice it.
CANCEL_SECONDS: Final = 0.2


async def finish_within(seconds: float, work: Coroutine[Any, Any, Any]) -> None:
    """Run `work` to its end, at most about `seconds`, whatever it raises and whatever cancels us meanwhile.

    Raises CancelledError at the end if we were cancelled, and nothing else.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    cancelled: asyncio.CancelledError | None = None
    for patience in (seconds, CANCEL_SECONDS):
        deadline = loop.time() + patience
        while not task.done() and (left := deadline - loop.time()) > 0:
            try:
                await asyncio.wait({task}, timeout=left)
            except asyncio.CancelledError as error:
                cancelled = error
        task.cancel()
    if task.done() and not task.cancelled():
        # Looked at, so that asyncio does not complain that nobody did.
        task.exception()
    if cancelled is not None:
        raise cancelled


def cancellations() -> Callable[[], None]:
    """Return what raises CancelledError when the current task was cancelled after this call.

    wait_for of Python 3.11, which nats-py uses throughout, swallows a cancellation that comes together with a result.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()

    def heed() -> None:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError

    return heed
