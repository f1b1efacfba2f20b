"""The duty that compares what workers list with what Postgres says they run, and acts on rows that leaked.

One statement for each table and a thousand workers, twice in a `leak_grace`; none where nobody lists anything. When a
row has leaked is decided by `reports`; the statements that act check it again. Nothing of the life ends: its other
rows, its epoch and its row in the registry stay as they are.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec
import structlog

from liveness.apart import apart
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.reports import Leak, Reports
from liveness.settings import Settings
from liveness.store import Leaked, Store

log = structlog.get_logger("liveness.comparing")

# Workers in one look.
BATCH = 1_000
# Looks in a leak_grace; and between two looks (seconds) at least, and at most.
LOOKS, LOOK_LEAST, LOOK_MOST = 2, 0.5, 30.0


class Compared(msgspec.Struct):
    """What one round did: rows that had leaked, those of them told of, and those put back."""

    leaked: int = 0
    told: int = 0
    items: int = 0


class Comparing:
    """Compares. `clock` is the loop's monotonic time, `leading()` says whether this replica acts."""

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        reports: Reports,
        store: Store,
        settings: Settings,
        clock: Callable[[], float],
        counts: Counter[str],
        leading: Callable[[], bool] = lambda: True,
    ) -> None:
        # Meanwhile rows that leaked are only told of; found again behind it, they go back.
        self.paused: Callable[[], bool] = lambda: False
        self.interval = min(max(settings.leak_grace / LOOKS, LOOK_LEAST), LOOK_MOST)
        self._book = book
        self._hearing = hearing
        self._reports = reports
        self._store = store
        self._clock = clock
        self._counts = counts
        self._leading = leading
        self._grace = settings.leak_grace
        self._may_reclaim = settings.leak_action == "reclaim" and settings.mode == "act"

    @property
    def _reclaims(self) -> bool:
        return self._may_reclaim and not self.paused()

    async def run_once(self) -> Compared:
        """Look once at everybody who lists anything. Raises DatabaseAwayError, NotLeaderError."""
        done = Compared()
        names = list(self._reports.of)
        for start in range(0, len(names), BATCH):
            batch = names[start : start + BATCH]
            self._reports.tidy(self._book, batch)
            if self._leading():
                await self._compare(batch, done)
            else:
                await asyncio.sleep(0)
        return done

    async def _compare(self, names: Sequence[bytes], done: Compared) -> None:
        asked = dict(self._reports.listing(self._book, names))
        if not asked:
            return
        found = await self._store.leaks.unreported(asked, told=self._reclaims)
        clock = self._clock()
        if self._hearing.deaf(clock) or self._hearing.in_gap(clock):
            # A beat that lists the row may lie unread.
            return
        leaks = self._reports.looked(self._book, asked, found, clock)
        done.leaked += len(leaks)
        for leak, error in await apart(leaks, lambda some: self._act(some, done)):
            log.error("leak_refused", worker=leak.worker, work=leak.work, id=leak.id, cause=str(error))

    async def _act(self, leaks: Sequence[Leak], done: Compared) -> None:
        leaked = [self._with_evidence(leak) for leak in leaks]
        if self._reclaims:
            items = await self._store.leaks.reclaim(leaked)
            done.items += items
            self._counts["leaks_reclaimed"] += items
        else:
            told = await self._store.leaks.report(leaked)
            done.told += told
            self._counts["leaks"] += told
            if not told:
                return
        for leak in leaks:
            log.warning("leaked", worker=leak.worker, epoch=leak.epoch, work=leak.work, id=leak.id)

    def _with_evidence(self, leak: Leak) -> Leaked:
        lease, clock = self._book.get(leak.worker), self._clock()
        last_beat = None if lease is None else lease.last_beat
        return Leaked(
            leak,
            None if last_beat is None else self._hearing.real_ago(last_beat, clock),
            {
                "why": (
                    f"RUNNING in the name of a worker that lives and left it out for {leak.left_out_for:.3f} s of "
                    f"hearing, in each of {leak.reports} beats; leak_grace {self._grace:g} s"
                ),
                "left_out_for": leak.left_out_for,
                "reports": leak.reports,
                "leak_grace": self._grace,
                "hearing": {"now": self._hearing.now, "not_counted": self._hearing.lost, "gaps": self._hearing.gaps},
            },
        )
