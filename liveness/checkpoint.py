"""The duty that refreshes `last_heartbeat_at` in the host's registry, for whoever else reads it.

A pass goes through the leases that there are when it begins, a batch at a time, spread over half of the interval:
written all at once, the beats of 100,000 workers keep Postgres busy for a second and more, and what is more urgent
waits behind them (p99 of the lateness of reclaims on 2 cores: 36 ms without, 255 ms beside such a pass).
"""

from collections.abc import Callable, Sequence

from liveness.apart import apart
from liveness.hearing import Hearing
from liveness.lease import Lease
from liveness.leases import LeaseTable
from liveness.store import Store

# Leases in one statement, which takes some 15 ms: no reclaim, and no update of the host's, waits longer behind it.
BATCH = 1_000
# The share of the interval that a pass is spread over; the rest is Postgres' to recover, however long a pass takes.
SPREAD = 0.5


class Checkpoint:
    """Writes down who beat since the last pass. `clock` is the loop's monotonic time, `every` in seconds."""

    def __init__(
        self, *, book: LeaseTable, hearing: Hearing, store: Store, clock: Callable[[], float], every: float
    ) -> None:
        self._book = book
        self._hearing = hearing
        self._store = store
        self._clock = clock
        self._every = every
        # Of the pass under way: whom it has not come to, how long it waits between two batches, and when it began, in
        # loop time and in hearing time.
        self._left: list[Lease] = []
        self._pause = 0.0
        self._began = self._heard_to = 0.0
        # Hearing time; beats before it were written down.
        self._since = 0.0

    @property
    def interval(self) -> float:
        """How long to wait, in seconds: for the next batch, or for the next pass."""
        if self._left:
            return self._pause
        return max(self._began + self._every - self._clock(), self._every * (1 - SPREAD))

    async def run_once(self) -> int:
        """Write the next batch, of a new pass if none is under way; return how many workers it held.

        Raises DatabaseAwayError and NotLeaderError: then the batch is the next one again.
        """
        if not self._left:
            self._begin()
        batch = self._left[-BATCH:]
        # One that has left the book since is not looked at: another may have its name.
        beats = [
            (worker, lease.last_beat)
            for lease in batch
            if lease.last_beat is not None
            and lease.last_beat >= self._since
            and self._book.get(worker := lease.worker) is lease
        ]
        await apart(beats, self._write)
        del self._left[-BATCH:]
        if not self._left:
            self._since = self._heard_to
        return len(beats)

    def _begin(self) -> None:
        self._left = list(self._book)
        self._pause = self._every * SPREAD / max(-(-len(self._left) // BATCH), 1)
        self._began = self._clock()
        self._heard_to = self._hearing.now

    async def _write(self, beats: Sequence[tuple[str, float]]) -> None:
        clock = self._clock()
        await self._store.host.checkpoint({worker: self._hearing.real_ago(beat_at, clock) for worker, beat_at in beats})
