"""What a worker finds around it: the time, the way to NATS, and the wait for its next beat."""

import asyncio
import contextlib
from collections.abc import Callable

from liveness.client.clock import clock
from liveness.link import Link


class Surroundings:
    """Those of a real worker. In a test of one, `liveness.testing` puts others in their place."""

    def clock(self) -> float:
        """Return the worker's clock (seconds)."""
        return clock()

    def link(self, on_refusal: Callable[[str], None]) -> Link:
        """Return a link to NATS, to be opened."""
        return Link(on_refusal)

    async def pause(self, seconds: float, sooner: asyncio.Event) -> None:
        """Wait for so many `seconds`, or until `sooner` is set."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await sooner.wait()
