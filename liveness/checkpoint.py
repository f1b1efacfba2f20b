"""The duty that refreshes `last_heartbeat_at` in the host's registry, in one batched statement."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from liveness.apart import apart
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.store import Store

log = structlog.get_logger("liveness.checkpoint")

# Workers in one statement. More only make it longer, and the host's own updates wait behind it.
BATCH = 5_000


class Checkpoint:
    """Writes down who beat since the last time. `clock` is the loop's monotonic time."""

    def __init__(self, *, book: LeaseTable, hearing: Hearing, store: Store, clock: Callable[[], float]) -> None:
        self._book = book
        self._hearing = hearing
        self._store = store
        self._clock = clock
        self._since = 0.0

    async def run_once(self) -> int:
        """Refresh the workers that beat since the last time that this went well; return how many."""
        now = self._hearing.now
        beats = [
            (lease.worker, lease.last_beat)
            for lease in self._book.lines.heard_since(self._since)
            if lease.last_beat is not None
        ]
        for start in range(0, len(beats), BATCH):
            await apart(beats[start : start + BATCH], self._write)
            await asyncio.sleep(0)
        self._since = now
        return len(beats)

    async def _write(self, beats: Sequence[tuple[str, float]]) -> None:
        clock = self._clock()
        await self._store.host.checkpoint({worker: self._hearing.real_ago(beat_at, clock) for worker, beat_at in beats})
