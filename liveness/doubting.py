"""The duty that tells of workers which live and are not well: suspected, wedged, and recovered.

Every replica looks, so that whoever comes to lead knows; the one that acts tells. What is told is kept in Postgres in
the same transaction, so it is told once, and taken back by whichever replica leads then. While nothing changes,
Postgres is asked nothing. A doubt ends nothing, and nothing is taken for it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec
import structlog

from liveness.apart import Refusals, apart
from liveness.hearing import Hearing
from liveness.lease import Lease
from liveness.leases import LeaseTable
from liveness.reports import Report, Reports
from liveness.settings import Settings
from liveness.store import Doubt, Store
from liveness.suspects import Suspects

log = structlog.get_logger("liveness.doubting")

SUSPECTED, WEDGED = "suspected", "wedged"
# Doubts in one statement: all that one look finds.
BATCH = 10_000
# Between two tries to mark, or to set back, registry rows that the host holds; and between two questions whether those
# run anything that stand still and do not say it.
AGAIN_SECONDS = 5.0
# Names in one such question.
ASKED_AT_ONCE = 1_000

Key = tuple[str, str]


class Known(msgspec.Struct, frozen=True):
    """A doubt that Postgres keeps: of which epoch, since when (loop time), and with what progress."""

    epoch: int
    raised_at: float
    progress: int | None


class Doubted(msgspec.Struct):
    """What one round did, in doubts."""

    raised: int = 0
    ended: int = 0


class Doubting:
    """Tells. `clock` is the loop's monotonic time, `leading()` says whether this replica acts."""

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        suspects: Suspects,
        reports: Reports,
        store: Store,
        settings: Settings,
        clock: Callable[[], float],
        leading: Callable[[], bool] = lambda: True,
    ) -> None:
        # Meanwhile nobody is marked DEGRADED who was not yet.
        self.paused: Callable[[], bool] = lambda: False
        # Doubts told since the start, and how many workers were found wedged lately, by the one that acts.
        self.told: Counter[str] = Counter()
        self.wedged_lately = 0
        self._book = book
        self._hearing = hearing
        self._suspects = suspects
        self._reports = reports
        self._store = store
        self._clock = clock
        self._leading = leading
        self._acts = settings.mode == "act"
        self._marks = settings.mark_suspects and self._acts
        self._refusals, self._not_set_back = Refusals(clock), Refusals(clock)
        # What Postgres keeps; None: to be read.
        self._kept: dict[Key, Known] | None = None
        # Names of which rows are to be marked, or set back; and when that is tried again (loop time).
        self._unmarked: set[str] = set()
        self._owing: set[str] = set()
        self._again_at = self._ask_at = 0.0

    async def run_once(self) -> Doubted:
        """Look, and tell what has changed.

        Raises DatabaseAwayError and NotLeaderError: the next round does what is left.
        """
        done = Doubted()
        self._suspects.look(self._hearing.now)
        if not self._leading():
            self._kept, self.wedged_lately = None, 0
            return done
        kept, self._kept = self._kept, None
        if kept is None:
            kept = await self._read()
        await self._ask_who_is_busy()
        wanted = self._wanted()
        self.wedged_lately = sum(kind == WEDGED for _, kind in wanted)
        raised = [doubt for key, doubt in wanted.items() if key not in kept or kept[key].epoch != doubt.epoch]
        ended = [key for key, known in kept.items() if key not in wanted and self._is_over(key, known)]
        for start in range(0, len(raised), BATCH):
            done.raised += await self._raise(raised[start : start + BATCH], kept)
        for start in range(0, len(ended), BATCH):
            done.ended += await self._end(ended[start : start + BATCH], kept)
        if (self._unmarked or self._owing) and self._clock() >= self._again_at:
            await self._mark(list(self._unmarked))
            await self._set_back([name for name in self._owing if name not in self._not_set_back])
            self._again_at = self._clock() + AGAIN_SECONDS
        self._kept = kept
        return done

    def state_of(self, lease: Lease) -> Literal["live", "draining", "suspect", "wedged"]:
        """Return how a worker is that lives."""
        if lease.worker in self._suspects.suspected:
            return "suspect"
        if self._reports.is_wedged(self._book, lease.name):
            return "wedged"
        return "draining" if lease.draining else "live"

    def wedged(self) -> Iterator[str]:
        """Go through the names of those that are wedged."""
        return (name.decode() for name in self._reports.standing if self._reports.is_wedged(self._book, name))

    async def _read(self) -> dict[Key, Known]:
        asked_at = self._clock()
        kept = {}
        for one in await self._store.doubts.kept():
            if one.over:
                self._owing.add(one.worker)
            else:
                kept[one.worker, one.kind] = Known(one.epoch, asked_at - one.raised_ago, one.progress)
                if one.kind == SUSPECTED and self._marks:
                    self._unmarked.add(one.worker)
        return kept

    async def _ask_who_is_busy(self) -> None:
        names = self._reports.unlisted()[:ASKED_AT_ONCE]
        if names and self._clock() >= self._ask_at:
            self._reports.busy(names, await self._store.host.running(names), self._hearing.now)
            self._ask_at = self._clock() + AGAIN_SECONDS

    def _wanted(self) -> dict[Key, Doubt]:
        wanted: dict[Key, Doubt] = {}
        clock = self._clock()
        for worker, suspect in self._suspects.suspected.items():
            lease = self._book.get(worker)
            if lease is not None and lease.epoch is not None and lease.ending is None and lease.last_beat is not None:
                wanted[worker, SUSPECTED] = Doubt(
                    worker=worker, epoch=lease.epoch, kind=SUSPECTED, incarnation=lease.incarnation,
                    cause=suspect.cause, ttl=lease.ttl, silent_for=self._hearing.real_ago(lease.last_beat, clock),
                )  # fmt: skip
        for name, report in self._reports.standing.items():
            lease = self._book.find(name)
            if lease is not None and lease.epoch is not None and self._reports.is_wedged(self._book, name):
                wanted[lease.worker, WEDGED] = Doubt(
                    worker=lease.worker, epoch=lease.epoch, kind=WEDGED, incarnation=lease.incarnation,
                    progress=report.progress, running=None if report.running is None else len(report.running),
                    still_for=self._hearing.real_ago(report.still_since, clock),
                )  # fmt: skip
        return {key: doubt for key, doubt in wanted.items() if doubt.worker not in self._refusals}

    def _is_over(self, key: Key, known: Known) -> bool:
        worker, kind = key
        lease = self._book.get(worker)
        if lease is None or lease.epoch != known.epoch:
            return True
        if lease.last_beat is None or self._when(lease.last_beat) < known.raised_at:
            # Not heard since, be it that another replica doubted it, for what only that one was told.
            return False
        if kind == SUSPECTED:
            return True
        report = self._reports.of.get(lease.name)
        return report is not None and _has_moved(report, known.progress)

    def _when(self, moment: float) -> float:
        clock = self._clock()
        return clock - self._hearing.real_ago(moment, clock)

    async def _raise(self, doubts: Sequence[Doubt], kept: dict[Key, Known]) -> int:
        clock, raised = self._clock(), 0

        async def act(some: Sequence[Doubt]) -> None:
            nonlocal raised
            noted = await self._store.doubts.raise_(some)
            for doubt in some:
                if (doubt.worker, doubt.kind) in noted:
                    kept[doubt.worker, doubt.kind] = Known(doubt.epoch, clock, doubt.progress)
                    log.warning(
                        "suspected" if doubt.kind == SUSPECTED else "wedged",
                        worker=doubt.worker,
                        epoch=doubt.epoch,
                        cause=doubt.cause,
                    )
            raised += len(noted)
            self.told.update(kind for _, kind in noted)

        for doubt, error in await apart(doubts, act):
            self._refusals.add(doubt.worker)
            log.error("doubt_refused", worker=doubt.worker, kind=doubt.kind, cause=str(error))
        if self._marks:
            await self._mark([doubt.worker for doubt in doubts if doubt.kind == SUSPECTED])
        return raised

    async def _end(self, keys: Sequence[Key], kept: dict[Key, Known]) -> int:
        ended = await self._store.doubts.end([(*key, kept[key].epoch) for key in keys])
        for worker, kind in ended:
            del kept[worker, kind]
            log.info("no_longer", worker=worker, kind=kind)
        self._unmarked.difference_update(worker for worker, kind in ended if kind == SUSPECTED)
        await self._set_back([worker for worker, _ in ended])
        return len(ended)

    async def _mark(self, names: Sequence[str]) -> None:
        if self.paused():
            self._unmarked.update(names)
            return
        self._unmarked.difference_update(names)
        for name, error in await apart(names, self._degrade):
            log.error("degrade_refused", worker=name, cause=str(error))

    async def _degrade(self, names: Sequence[str]) -> None:
        self._unmarked |= await self._store.doubts.degrade(names)

    async def _set_back(self, names: Sequence[str]) -> None:
        self._owing.difference_update(names)
        for name, error in await apart(names, self._set_online):
            # Somebody has to mend that first; and then it must not stay DEGRADED.
            self._owing.add(name)
            self._not_set_back.add(name)
            log.error("set_online_refused", worker=name, cause=str(error))

    async def _set_online(self, names: Sequence[str]) -> None:
        self._owing |= await self._store.doubts.set_online(names)


def _has_moved(report: Report, progress: int | None) -> bool:
    return report.progress is not None and (report.progress != progress or report.running == [])
