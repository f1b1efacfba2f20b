"""The duty that knows whether an operator has paused, tells it, and tells what is held for it.

Postgres keeps the pause, and itself keeps everybody from taking anything meanwhile (`store.pauses`). What is known here
only saves the tries, and is up to `PAUSE_SECONDS` old. Nothing else changes: who lapses or ends waits in the book for a
verdict, as through an outage of Postgres, and a beat revives whoever has only lapsed.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from liveness.answers import Pause, Swept
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.storms import Storms

log = structlog.get_logger("liveness.pausing")

# Between two looks, by every replica.
PAUSE_SECONDS = 2.0
# Between two lines of the log that say it again.
REMIND_SECONDS = 600.0
# Names of which it is asked at once what they run.
BATCH = 1_000


class Pausing:
    """Looks. `read()` asks Postgres, `running(names)` what names run; `clock` is the loop's monotonic time.

    `leading()` says whether this replica acts; the others are silent about what is held.
    """

    def __init__(
        self,
        *,
        read: Callable[[], Awaitable[tuple[Pause | None, str | None]]],
        running: Callable[[Sequence[str]], Awaitable[Mapping[str, int]]],
        book: LeaseTable,
        hearing: Hearing,
        storms: Storms,
        clock: Callable[[], float],
        leading: Callable[[], bool],
    ) -> None:
        self.pause: Pause | None = None
        self._read = read
        self._running = running
        self._book = book
        self._hearing = hearing
        self._storms = storms
        self._clock = clock
        self._leading = leading
        # When it was asked last, and when it was said last.
        self._looked_at = self._told_at = 0.0
        # The lives that are held, or were until a moment ago, each with the pause that holds it.
        self._held: dict[tuple[str, int], Pause] = {}
        # What sweeps have found since, by name and reason.
        self._swept: set[tuple[str, str]] = set()

    @property
    def on(self) -> bool:
        """Whether nothing is taken, as far as is known here."""
        return self.pause is not None

    def seconds(self) -> float:
        """Return for how long it has been on; 0 if it is not."""
        return 0.0 if self.pause is None else self.pause.held_for + self._clock() - self._looked_at

    def lines(self) -> list[str]:
        """Return what is to be said of it: a line while it is on."""
        return [] if self.pause is None else [str(self.pause)]

    def evidence(self, worker: str, epoch: int | None) -> Mapping[str, object]:
        """Return what is kept of a pause with the end of a life that it has held."""
        held = None if epoch is None else self._held.get((worker, epoch))
        return {} if held is None else {"paused": f"held, paused by {held.by} since {held.since}"}

    def note(self, swept: Swept) -> None:
        """Tell what a sweep would have taken, each name once."""
        if not swept.dry_run:
            self._swept.clear()
            return
        for reason, names in (("stale", swept.stale), ("orphaned", swept.orphaned)):
            for worker in names:
                if (worker, reason) not in self._swept:
                    self._swept.add((worker, reason))
                    log.warning("would_end", worker=worker, epoch=None, reason=reason, items=None)

    async def look(self) -> None:
        """Ask Postgres, and say what has changed. Raises DatabaseAwayError: what was known before goes on."""
        before, (self.pause, resumed_by) = self.pause, await self._read()
        now = self._looked_at = self._clock()
        if self.pause is None:
            if before is not None:
                log.warning("resumed", by=resumed_by or "its time was up", held=len(self._held), paused_by=before.by)
            return
        new = before is None or (before.since, before.by, before.why) != (
            self.pause.since,
            self.pause.by,
            self.pause.why,
        )
        if new or now - self._told_at >= REMIND_SECONDS:
            self._told_at = now
            log.warning(
                "paused" if new else "still_paused",
                by=self.pause.by,
                since=self.pause.since,
                why=self.pause.why,
                left=self.pause.left,
                held=len(self._held),
                advice="nothing is taken from anybody until `liveness resume`",
            )

    async def run_once(self) -> None:
        """Look, and tell of the lives that would have ended since the last time. Raises as `look` does."""
        # Whose verdict has come since, or who was heard again, is held no more.
        for key in [key for key in self._held if not self._ends(*key)]:
            del self._held[key]
        await self.look()
        if (pause := self.pause) is None or not self._leading():
            return
        now = self._hearing.now
        ends = {
            lease.worker: (lease.epoch, lease.ending.reason)
            for lease in self._book.endings.values()
            if lease.ending is not None
            and lease.epoch is not None
            and (lease.worker, lease.epoch) not in self._held
            and ((held := self._storms.hold(lease, now)) is None or held[1] <= 0)
        }
        names = list(ends)
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            running = await self._running(batch)
            for worker in batch:
                epoch, reason = ends[worker]
                self._held[worker, epoch] = pause
                log.warning("would_end", worker=worker, epoch=epoch, reason=reason, items=running.get(worker, 0))

    def _ends(self, worker: str, epoch: int) -> bool:
        lease = self._book.endings.get(worker)
        return lease is not None and lease.epoch == epoch
