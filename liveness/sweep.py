"""The fallback: what memory never knew, found in the database.

Two finds: *stale* names, up in the registry though nobody recorded a beat of them within `heartbeat_timeout`; and
*orphans*, RUNNING work untouched for `workflow_stuck_timeout` whose owner is not up. The sweep takes nothing of a name
that is in the book (the way out decides on those), nothing before it has itself listened for that name's ttl (while
strangers are turned away nobody has, but for names that are let in whatever happens: see `admission`), nothing that is
ambiguous, and nothing in a storm, which says that we cannot tell; of stale names nothing that was touched since the
moment up to which our hearing is proven: it may be of one that has begun since, whose beats are on their way. What is
left of its belief by then is checked again by the reclaim's own statements. A silence in Postgres counts only while
that could be seen (`reach`), and nothing is taken if it was out of sight while the sweep looked.
"""

from collections.abc import Callable, Sequence

import structlog

from liveness.admission import Admission
from liveness.answers import Swept
from liveness.apart import Refusals, apart
from liveness.figures import counting
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.reach import Reach
from liveness.settings import Settings
from liveness.spans import span
from liveness.store import Found, Store
from liveness.storms import LEAST, Storms
from liveness.subjects import name_fault
from liveness.turns import in_turns
from liveness.verdicts import Case, Outcome

log = structlog.get_logger("liveness.sweep")

# Names that one transaction ends: as many as the way out does, for the same reason.
BATCH = 500


class Sweep:
    """Looks through the host's tables. `listening_since` is the hearing time from which we have listened.

    `clock` is the loop's monotonic time.
    """

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        storms: Storms,
        store: Store,
        settings: Settings,
        clock: Callable[[], float],
        admission: Admission | None = None,
    ) -> None:
        self.last: Swept | None = None
        # Sweeps since the start that took what they found.
        self.done = 0
        self.listening_since = 0.0
        self.reach = Reach()
        self._book = book
        self._admission = admission or Admission()
        self._hearing = hearing
        self._storms = storms
        self._clock = clock
        self._store = store
        self._heartbeat_timeout = settings.heartbeat_timeout
        self._stuck_timeout = settings.workflow_stuck_timeout
        self._mode = settings.mode
        self._reported: set[str] = set()
        self._refusals = Refusals(clock)
        # Whether lives wait behind those that Postgres is just asked about.
        self.more = False

    async def run_once(self, *, dry_run: bool = False) -> Swept:
        """Find and take what memory never knew; with `dry_run`, only say what would be taken."""
        with span("sweep", {"liveness.mode": self._mode, "liveness.dry_run": dry_run}) as told:
            swept = await self._sweep(dry_run=dry_run)
            told.note(
                {
                    "liveness.stale": len(swept.stale),
                    "liveness.orphaned": len(swept.orphaned),
                    "liveness.too_early": len(swept.too_early),
                    "liveness.ambiguous": len(swept.ambiguous),
                    "liveness.refused": len(swept.refused),
                    "liveness.ownerless": sum(swept.ownerless.values()),
                    "liveness.lives.ended": swept.ended,
                    "liveness.items": swept.items,
                }
            )
        return swept

    async def _sweep(self, *, dry_run: bool) -> Swept:
        if not dry_run and self._mode == "act":
            await self._store.epochs.set_back()
        swept = Swept(dry_run=dry_run, ownerless=await self._store.host.ownerless(self._stuck_timeout))
        # Whoever began behind what is proven of our hearing has beaten, perhaps, and we have yet to read it.
        looked_at = min(self._clock(), self._hearing.not_before)
        # It may just be back.
        await self._store.leader.look()
        outages = self.reach.outages
        stale = await self._takeable(await self._store.host.stale(self.stale_after()), swept)
        orphaned = await self._takeable(await self._store.host.orphaned(self.orphaned_after()), swept)
        swept.stale = [found.worker for found in stale]
        swept.orphaned = [found.worker for found in orphaned]
        self._report(swept)
        if dry_run:
            # None of them is a find: memory knows them, and the way out takes them when it may.
            waiting, now = self._book.endings.values(), self._hearing.now
            swept.ending = [lease.worker for lease in waiting if self._storms.hold(lease, now) is None]
        else:
            # As many as make a storm at once are no single piece of work's doing.
            crash = len(stale) < LEAST
            await self._take([self._stale_case(found, looked_at, crash=crash) for found in stale], swept, outages)
            await self._take([self._orphan_case(found) for found in orphaned], swept, outages)
            self.last = swept
            self.done += 1
        return swept

    async def _takeable(self, finds: Sequence[Found], swept: Swept) -> list[Found]:
        candidates = []
        async for found in in_turns(finds):
            if (fault := name_fault(found.worker)) is not None:
                swept.ambiguous[found.worker] = f"no worker can have this name: it {fault}"
            elif self._book.get(found.worker) is not None:
                continue
            elif (more := self._has_to_listen(found.worker, max(self._heartbeat_timeout, found.ttl or 0.0))) > 0:
                swept.too_early.append(found.worker)
                swept.listen = max(swept.listen, more)
            elif found.undated is not None:
                swept.ambiguous[found.worker] = (
                    f"it is not up, but nothing tells how long its {found.undated} rows were untouched: if it is dead, "
                    f"`liveness reclaim {found.worker}` gives them back"
                )
            else:
                candidates.append(found)
        ambiguous = await self._store.host.ambiguous([found.worker for found in candidates])
        swept.ambiguous |= {worker: f"differs only in case from {other}" for worker, other in ambiguous.items()}
        return [found for found in candidates if found.worker not in ambiguous]

    async def _take(self, cases: Sequence[Case], swept: Swept, outages: int) -> None:
        try:
            await self._take_all(cases, swept, outages)
        finally:
            self.more = False

    async def _take_all(self, cases: Sequence[Case], swept: Swept, outages: int) -> None:
        for start in range(0, len(cases), BATCH):
            self.more = start + BATCH < len(cases)
            await self._store.leader.look()
            if self.reach.outages > outages:
                swept.held = "Postgres was not seen while it looked: it looks again"
                log.info("sweep_held", names=len(cases) - start, why=swept.held)
                return
            # A name may have been heard since it was found, and be in the book or turned away.
            batch = [
                case
                for case in cases[start : start + BATCH]
                if self._book.get(case.worker) is None
                and case.worker not in self._refusals
                and self._admission.could_be_heard(case.worker, self._hearing.now, case.ttl)
            ]
            # What says that one of them lives may lie unread.
            unread = self._hearing.in_gap(self._clock())
            if not batch or unread or self.listened_for() < self._heartbeat_timeout:
                continue
            if self._storms.holding:
                swept.held = "a storm"
                log.info("sweep_held", names=len(batch), why=swept.held)
                return
            for case, error in await apart(batch, lambda some: self._settle(some, swept)):
                self._refusals.add(case.worker, str(error))
                swept.refused[case.worker] = str(error)
                log.error("reclaim_refused", worker=case.worker, cause=str(error))

    async def _settle(self, cases: Sequence[Case], swept: Swept) -> None:
        verdicts = await self._store.reclaims.settle(cases)
        for verdict in verdicts:
            if verdict.outcome is Outcome.ENDED:
                swept.ended += 1
                swept.items += sum(verdict.items.values())
                log.warning("swept", worker=verdict.worker, epoch=verdict.epoch, items=dict(verdict.items))
        await self._adopt([verdict.worker for verdict in verdicts if verdict.outcome is Outcome.OVER])

    async def _adopt(self, names: list[str]) -> None:
        # An open epoch that is not in the book was granted by another replica. It is owed a ttl of listening, like all.
        for life in await self._store.epochs.open_lives(names) if names else []:
            ttl = life.ttl or self._heartbeat_timeout
            self._book.restore(life.worker, self._hearing.now, ttl, life.epoch, life.incarnation)

    def stale_after(self) -> float:
        """Return how old, in seconds, the last heartbeat that was recorded of a name has to be that is stale."""
        return self.reach.ago(self._heartbeat_timeout)

    def orphaned_after(self) -> float:
        """Return for how many seconds nobody may have touched an orphan."""
        return self.reach.ago(self._stuck_timeout)

    def _stale_case(self, found: Found, looked_at: float, *, crash: bool) -> Case:
        return self._case(
            found,
            reason="stale",
            # Whoever begins under the name while we make sure, or is not heard yet, claims for itself.
            untouched_for=0.0,
            measured_at=looked_at,
            why=(
                "up in the registry, but nobody recorded a heartbeat for more than "
                f"{counting(self._heartbeat_timeout, self.stale_after())} and none was heard in "
                f"{self.listened_for():.3f} s of listening"
            ),
            must_be_up=True,
            crash=crash,
            spare_within=self.stale_after(),
        )

    def _orphan_case(self, found: Found) -> Case:
        return self._case(
            found,
            reason="orphaned",
            why=(
                f"RUNNING work untouched for more than {counting(self._stuck_timeout, self.orphaned_after())} whose "
                f"owner is not up in the registry and was not heard in {self.listened_for():.3f} s of listening"
            ),
            must_be_up=False,
            untouched_for=self.orphaned_after(),
        )

    def _case(
        self,
        found: Found,
        *,
        reason: str,
        why: str,
        must_be_up: bool,
        untouched_for: float | None,
        measured_at: float | None = None,
        spare_within: float | None = None,
        crash: bool = False,
    ) -> Case:
        return Case(
            worker=found.worker,
            epoch=None,
            incarnation=None,
            reason=reason,
            ttl=max(self._heartbeat_timeout, found.ttl or 0.0),
            must_be_up=must_be_up,
            spare_within=spare_within,
            untouched_for=untouched_for,
            measured_at=measured_at,
            crash=crash,
            evidence={
                "why": why,
                "registry_silent_for": found.silent_for,
                "listened_for": self.listened_for(),
                "hearing": {"now": self._hearing.now, "not_counted": self._hearing.lost},
            },
        )

    def refused(self, worker: str) -> str | None:
        """Return what Postgres had against ending `worker` when it was swept lately, or None."""
        return self._refusals.cause(worker)

    def listened_for(self) -> float:
        """Return the seconds of hearing without a loss. While nothing can be heard, nobody was listened for."""
        return 0.0 if self._hearing.deaf(self._clock()) else self._hearing.now - self.listening_since

    def _has_to_listen(self, worker: str, ttl: float) -> float:
        return max(ttl - self.listened_for(), self._admission.unheard_for(worker, self._hearing.now, ttl))

    def _report(self, swept: Swept) -> None:
        # Once for each name: they stay as they are until somebody mends them.
        for worker, why in swept.ambiguous.items():
            if worker not in self._reported:
                self._reported.add(worker)
                log.warning("left_alone", worker=worker, why=why)
        for work, rows in swept.ownerless.items():
            if rows and work not in self._reported:
                self._reported.add(work)
                log.warning("left_alone", work=work, rows=rows, why="RUNNING without an owner")
