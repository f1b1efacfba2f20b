"""The connections of the HTTP listener: bounded in number, and in how long one may say nothing, or take nothing.

Whoever reaches the port can open as many as it likes, and shows no token for that. Each is a file descriptor, of which
NATS, Postgres and the probes need some as well. So beyond `MOST` one is ended, and never the one that comes, which may
be the orchestrator's probe and asks at once. It is the one that has waited longest: for a request, for the rest of one,
or for somebody to take its answer.
"""

import asyncio
import math
from typing import ClassVar, Final, cast

import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

log = structlog.get_logger("liveness.connections")

# At once: many times what probes, Prometheus and browsers need, and a quarter of the 1,024 descriptors that a process
# may have if nobody says otherwise.
MOST: Final = 256
# Accepted in one go. Some such goes have their descriptors before the first connection of them is seen here, so that it
# is far less than the rest of those 1,024.
AT_ONCE: Final = 64
# Those that wait for that in the kernel, where they have no descriptors. Of those beyond it nobody hears for a second,
# which is what an orchestrator waits for a probe. uvloop may accept as many in one go.
QUEUE: Final = 512
# Until a request is there as a whole, and until its answer is taken (seconds). An answer may take its time.
PATIENCE: Final = 10.0
# Between two lines of the log that say that there are too many.
TELL_SECONDS: Final = 60.0


class Connection(H11Protocol):
    """One of them, as uvicorn makes it."""

    _told_at: ClassVar[float] = -math.inf
    _not_told: ClassVar[int] = 0
    # While it is nobody's turn but the client's.
    _patience: asyncio.TimerHandle | None = None
    # When it became so, or ended to be so, by the loop's clock.
    _since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's does
        """Take it, in place of another one if need be."""
        if len(self.connections) >= MOST:
            self._make_room()
        super().connection_made(transport)
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        self._stop_waiting()

    def data_received(self, data: bytes) -> None:
        """Read on. Only a whole request ends the wait for it: however slowly one is sent, its time runs."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request, and for this answer to be taken."""
        super().on_response_complete()
        self._stop_waiting()
        self._look()

    def pause_writing(self) -> None:
        """Wait: what was written is not taken."""
        super().pause_writing()
        self._look()

    def resume_writing(self) -> None:
        """Go on: it was."""
        super().resume_writing()
        self._look()

    def turn(self) -> tuple[bool, float]:
        """Return by what the one that is ended is told: who waits before who does not, and of these who longest."""
        return self._patience is None, self._since

    @property
    def _waits(self) -> bool:
        # None until there was a request, whatever its type says.
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return cycle is None or cycle.response_complete or cycle.more_body or self.flow.write_paused

    def _look(self) -> None:
        if not self._waits:
            self._stop_waiting()
        elif self._patience is None:
            self._since = self.loop.time()
            self._patience = self.loop.call_later(PATIENCE, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
            self._since = self.loop.time()

    def _make_room(self) -> None:
        longest = min((cast("Connection", one) for one in self.connections), key=Connection.turn)
        # What is ended is lost only in the loop's next round, and is not to be counted until then.
        self.connections.discard(longest)
        longest.transport.abort()
        now = self.loop.time()
        Connection._not_told += 1
        if now - Connection._told_at >= TELL_SECONDS:
            log.warning("http_crowded", most=MOST, times=Connection._not_told)
            Connection._told_at, Connection._not_told = now, 0
