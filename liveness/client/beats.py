"""What the beats of a worker say, one after the other."""

from collections.abc import Callable
from typing import Final

import msgspec

from liveness.client.holding import Holding
from liveness.link import Link
from liveness.messages import Heartbeat


class Beats:
    """The beats of one process, which is as old as `begin` says."""

    def __init__(self, incarnation: str, ttl: float | None, holding: Holding, *, clock: Callable[[], float]) -> None:
        self.ttl: Final = ttl
        self.taken = 0
        """How many of them NATS has taken."""
        self._clock = clock
        self._incarnation = incarnation
        self._holding = holding
        self._born = 0.0
        self._seq = 0

    def begin(self, born: float) -> None:
        """Note since when, by the worker's clock, there is something to beat for."""
        self._born = born

    @property
    def uptime(self) -> float:
        """Seconds since then."""
        return self._clock() - self._born

    def next(self, link: Link, interval: float) -> bytes:
        """Return the next one, for `link`; the one behind it follows in `interval` seconds."""
        self._seq += 1
        beat = Heartbeat(
            incarnation=self._incarnation,
            seq=self._seq,
            ttl=self.ttl,
            interval=interval,
            uptime=self.uptime,
            probe=True,
            via=link.server_id,
            running=self._holding.running,
            progress=self._holding.progress,
            draining=self._holding.draining,
        )
        payload = msgspec.json.encode(beat)
        if len(payload) > link.max_payload:
            # Rather nothing of the work than no beat.
            payload = msgspec.json.encode(msgspec.structs.replace(beat, running=None))
        return payload
