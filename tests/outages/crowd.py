"""Many workers that only beat, from one connection: for lapses by the hundred."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Final

from tests.outages.wire import Wire, meanwhile

INTERVAL: Final = 0.5


class Crowd:
    """`names` beat until they are silenced. The connection is not made anew when it is lost."""

    def __init__(self, names: Sequence[str], ttl: float) -> None:
        self.beating: Final = dict.fromkeys(names)
        self._ttl: Final = ttl

    def silence(self, name: str) -> None:
        """Let one of them beat no more."""
        del self.beating[name]

    @contextlib.asynccontextmanager
    async def beats(self, port: int) -> AsyncIterator[None]:
        """Beat while the body runs; the first round is with the server when it begins."""
        wire = await Wire.open(port)
        payload = json.dumps({"ttl": self._ttl, "interval": INTERVAL, "via": wire.server_id}).encode()

        async def rounds() -> None:
            while True:
                for number, name in enumerate(list(self.beating)):
                    wire.publish(f"liveness.heartbeat.{name}", payload)
                    if number % 50 == 0:
                        # Spread over the interval, as real workers are.
                        await asyncio.sleep(0.01)
                # Nothing is waited for: the clock is what a worker beats by.
                await asyncio.sleep(INTERVAL / 2)

        try:
            for name in self.beating:
                wire.publish(f"liveness.heartbeat.{name}", payload)
            await wire.delivered()
            async with meanwhile(rounds()):
                yield
        finally:
            await wire.close()
