"""The way out: a lease lapses, or proof ends it, and Postgres is asked for its verdict until it has given one.

What is decided here is decided from the book alone, synchronously; then it is offered to Postgres, whose transaction
checks it again. A beat that comes before the verdict revives a lapsed lease, and its case is not offered any more; one
that comes while the transaction runs begins the name's next life (`LeaseTable.ended`). So a lapse whose verdict had to
wait is not offered while nothing can be heard, nor for the ttl that every lease is owed when beats may have been lost:
the one that would revive it may have been among them. What a storm has let go is the storm's, which counts that itself.

That ttl is owed three times at most, so that connections which are lost again and again keep no dead work. But
whoever could not be taken for long, because an operator had paused or Postgres was away, has used that up in vain: so
what the last loss before the first new try owes is owed in any case, once, and by the passes of a storm as well. Where
nothing was lost, nobody waits.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from liveness.apart import Refusals, apart
from liveness.cases import case_of
from liveness.errors import DatabaseAwayError, DatabaseRefusedError, PausedError
from liveness.hearing import Hearing
from liveness.lease import Ending, Lease
from liveness.leases import LeaseTable
from liveness.probes import Probes
from liveness.spans import said_in
from liveness.store import Store
from liveness.storms import Storms
from liveness.verdicts import Outcome, Verdict
from liveness.wakes import Wakes

log = structlog.get_logger("liveness.expiry")

# Epochs that one transaction ends at most. At 500 the cost of the transaction itself is a few per cent of the whole.
BATCH = 500
# The first time, before it is known how much work a life holds.
BATCH_FIRST = 20


class Expired(msgspec.Struct):
    """What one round did."""

    ended: int = 0
    spared: int = 0
    over: int = 0
    refused: int = 0
    items: int = 0
    # Lapses that a storm holds.
    held: int = 0


class Expiry:
    """Ends lives. `clock` is the loop's monotonic time."""

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        storms: Storms,
        probes: Probes,
        store: Store,
        clock: Callable[[], float],
        wakes: Wakes,
        chunk: int,
    ) -> None:
        """`chunk`: rows of one work table that one transaction puts back at most."""
        # Meanwhile Postgres is asked for no verdict; and what is added to the evidence of a life that was held so.
        self.paused: Callable[[], bool] = lambda: False
        self.held_for: Callable[[str, int | None], Mapping[str, object]] = lambda _worker, _epoch: {}
        self._chunk = chunk
        self._book = book
        self._hearing = hearing
        self._storms = storms
        self._probes = probes
        self._store = store
        self._clock = clock
        self._wakes = wakes
        self._refusals = Refusals(clock)
        self._batch = min(BATCH_FIRST, BATCH)
        # Whether lives wait behind those that Postgres is just asked about.
        self.more = False
        # Whether any life was to be offered at the last look: neither held nor just refused.
        self.due = False
        self._doubts: set[tuple[str, int]] = set()
        # Whose epoch somebody had locked when Postgres was asked last.
        self._contested: set[str] = set()
        # Whom a storm let go in this round, until there is an answer: without one they are the storm's again.
        self._let_go: dict[str, Ending] = {}
        # Nothing could be taken when it was tried last, or would have been; and the loss that is owed for it.
        self._barred = False
        self._loss = -math.inf, -math.inf
        # The round and an operator's command must not offer the same cases at once.
        self._one_at_a_time = asyncio.Lock()

    async def run_once(self) -> Expired:
        """Mark what has lapsed and settle every life that waits for a verdict.

        Raises DatabaseAwayError and NotLeaderError: whatever was not settled waits in the book for the next round.
        """
        await self._clear_doubts()
        self._hold_again()
        self.look()
        # Who was heard again, or whose life another replica ended, is not asked for any more.
        self._contested &= self._book.endings.keys()
        now = self._hearing.now
        self._probes.ask(now)
        lapsed = self._book.lapse(now)
        for lease in lapsed:
            self._probes.note(lease)
            log.info("lease_lapsed", worker=lease.worker, epoch=lease.epoch, ttl=lease.ttl)
        self._storms.judge(self._book, lapsed, now)
        for lease in [lease for lease in self._book.endings.values() if lease.ending and lease.ending.disputed]:
            self._book.reinstate(lease.worker, now)
            log.error("conflict", worker=lease.worker, complaint="two incarnations beat: the restart is not believed")
        going = self._storms.let_go(list(self._book.endings.values()), now, self._may_go)
        self._let_go = {
            lease.worker: ending for lease in going if (ending := lease.ending) is not None and ending.let_go
        }
        held = len(self._book.endings) - len(going)
        # A life without an epoch waits for its grant.
        due = [lease.worker for lease in going if lease.epoch is not None and lease.worker not in self._refusals]
        self.due = bool(due)
        # Those that nobody ever heard cost Postgres most and have waited longest: they hold up nobody.
        due.sort(key=self._book.unproven.__contains__)
        done = Expired() if self.paused() else await self.settle(due)
        if self._let_go and not self.paused():
            # Who has no epoch yet waits for that, and who was refused for its next turn; a storm does not.
            self._let_go = {worker: self._let_go[worker] for worker in self._let_go.keys() & set(due)}
        done.held = held
        # Last: what the operators are told must not keep the work waiting.
        await self._tell_storms()
        return done

    async def settle(self, workers: Sequence[str]) -> Expired:
        """Offer the lives of `workers` that wait for a verdict to Postgres. Raises as `run_once` does."""
        done = Expired()
        async with self._one_at_a_time:
            left = list(workers)
            try:
                while left:
                    some, left = left[: self._batch], left[self._batch :]
                    self.more = bool(left)
                    batch = await self._without_ambiguous(some)
                    for worker, error in await apart(batch, lambda some: self._offer(some, done)):
                        self._refusals.add(worker, str(error))
                        self._let_go.pop(worker, None)
                        done.refused += 1
                        log.error("reclaim_refused", worker=worker, cause=str(error))
            except (DatabaseAwayError, PausedError):
                self._barred = True
                raise
            finally:
                self.more = False
        return done

    def refused(self, worker: str) -> str | None:
        """Return what Postgres had against ending the life of `worker` lately, or None."""
        return self._refusals.cause(worker)

    def contested(self, worker: str) -> bool:
        """Say whether somebody had the epoch of `worker` locked when Postgres was asked for its verdict last."""
        return worker in self._contested

    async def _offer(self, workers: Sequence[str], done: Expired) -> None:
        clock = self._clock()
        # Then what undoes a lapse, or what beats have told, may have come already, and is read before we hear again.
        in_gap = self._hearing.in_gap(clock)
        cases = [
            case_of(lease, ending, self._hearing, clock, self.held_for(worker, lease.epoch))
            for worker in workers
            if (lease := self._book.endings.get(worker)) is not None
            and (ending := lease.ending) is not None
            and not (in_gap and (ending.by_beats or not ending.proof))
            and not (self._is_owed(lease, ending, clock) and not ending.proof)
        ]
        if not cases:
            return
        try:
            verdicts = await self._store.reclaims.settle(cases)
        except DatabaseAwayError:
            # Perhaps only the answer was lost.
            self._doubts.update((case.worker, case.epoch) for case in cases if case.epoch is not None)
            # And perhaps it was too much at once: what is too slow is so at every try.
            self._batch = max(self._batch // 2, 1)
            raise
        self._batch = next_batch(self._batch, verdicts, self._chunk)
        reasons = {case.worker: case.reason for case in cases}
        for verdict in verdicts:
            with said_in(verdict.traceparent):
                self._take(verdict, reasons[verdict.worker], done)
        self._wakes.rest.set()

    def look(self, *, away: bool = False) -> None:
        """Note whether anything could be taken now. Whoever does not act looks, too: it may have to, soon.

        `away`: Postgres has not answered us when we asked last.
        """
        if away or self.paused():
            self._barred = True
        elif self._barred and not self._hearing.deaf(self._clock()):
            # While nothing can be heard nothing is tried, and the new connection is one more loss.
            self._barred, self._loss = False, self._book.lines.loss

    def _hold_again(self) -> None:
        # Not as soon as it fails: perhaps only the answer was lost, and what was asked said that it is the storm's.
        for ending in self._let_go.values():
            ending.let_go = False
        self._let_go.clear()

    def _may_go(self, lease: Lease) -> bool:
        return not self.paused() and self._book.lines.owed_behind(self._loss, lease) <= self._hearing.now

    def _is_owed(self, lease: Lease, ending: Ending, clock: float) -> bool:
        now, lines = self._hearing.now, self._book.lines
        lost = not ending.let_go and lines.owed_by_loss(lease) > now
        return lost or lines.owed_behind(self._loss, lease) > now or self._hearing.deaf(clock)

    async def _clear_doubts(self) -> None:
        """Ask which epochs are over that may have ended without our knowing.

        A lease that a beat revived in the meantime would go on under an epoch that is none any more.
        """
        while doubts := list(self._doubts):
            lives = await self._store.epochs.open_lives([worker for worker, _ in doubts])
            still_open = {(life.worker, life.epoch) for life in lives}
            self._doubts.difference_update(doubts)
            for worker, epoch in doubts:
                if (worker, epoch) not in still_open:
                    log.info("epoch_already_over", worker=worker, epoch=epoch)
                    if self._book.ended(worker, epoch, self._hearing.now, elsewhere=True) is not None:
                        self._wakes.lives.set()

    async def _without_ambiguous(self, workers: Sequence[str]) -> Sequence[str]:
        # A name that nobody ever heard and that differs only in case from one that lives may be that one's.
        unheard = [
            worker
            for worker in workers
            if worker in self._book.unproven
            and (lease := self._book.endings.get(worker)) is not None
            and lease.ending is not None
            and not lease.ending.proof
        ]
        ambiguous = await self._store.host.ambiguous(unheard)
        for worker, other in ambiguous.items():
            log.warning("name_ambiguous", worker=worker, other=other)
            lease = self._book.get(worker)
            if lease is not None and lease.epoch is not None:
                self._book.spared(worker, lease.epoch, self._hearing.now)
        return [worker for worker in workers if worker not in ambiguous]

    def _take(self, verdict: Verdict, reason: str, done: Expired) -> None:
        self._contested.discard(verdict.worker)
        self._let_go.pop(verdict.worker, None)
        if verdict.epoch is None or verdict.outcome is Outcome.HELD:
            # Somebody has it locked just now: the next round offers it again.
            if verdict.outcome is Outcome.HELD:
                self._contested.add(verdict.worker)
            return
        now = self._hearing.now
        if verdict.outcome is Outcome.SPARED:
            done.spared += 1
            self._book.spared(verdict.worker, verdict.epoch, now - (verdict.heard_ago or 0.0))
            log.info("lease_spared", worker=verdict.worker, epoch=verdict.epoch, heard_ago=verdict.heard_ago)
            return
        if verdict.outcome is Outcome.ENDED:
            done.ended += 1
            done.items += sum(verdict.items.values())
            log.info("life_ended", worker=verdict.worker, epoch=verdict.epoch, reason=reason, items=dict(verdict.items))
        else:
            done.over += 1
            log.info("epoch_already_over", worker=verdict.worker, epoch=verdict.epoch)
        lease = self._book.get(verdict.worker)
        # A restart that was heard meanwhile may end more than was asked for.
        as_asked = lease is not None and lease.ending is not None and lease.ending.reason == reason
        elsewhere = verdict.outcome is not Outcome.ENDED or not as_asked
        if self._book.ended(verdict.worker, verdict.epoch, now, elsewhere=elsewhere) is not None:
            self._wakes.lives.set()
        if verdict.worker in self._book.arrivals:
            self._wakes.arrivals.set()

    async def _tell_storms(self) -> None:
        while self._storms.news:
            news = self._storms.news[0]
            try:
                await self._store.outbox.add("liveness.storm", news.via or "nats", msgspec.structs.asdict(news))
            except DatabaseRefusedError as error:
                # The storm holds all the same, and is logged; what is refused once is refused for ever.
                log.exception("storm_news_refused", cause=str(error))
            if self._storms.news and self._storms.news[0] is news:
                # Else they were forgotten with the lead meanwhile.
                del self._storms.news[0]
            log.log(30 if news.state == "over" else 40, "storm", **msgspec.structs.asdict(news))


def next_batch(batch: int, verdicts: Sequence[Verdict], chunk: int) -> int:
    """Return how many lives the next transaction is to end: so many that what they hold fills a chunk. Pure.

    What does not fit into the chunk is written down, read again and deleted: for a thousand workers with 100 rows each
    that took twice as long as to put all of them back at once.
    """
    ended = [verdict for verdict in verdicts if verdict.outcome is Outcome.ENDED]
    rows: Counter[str] = Counter()
    for verdict in ended:
        rows.update(verdict.items)
    fullest = max(rows.values(), default=0)
    if not ended:
        return min(2 * batch, BATCH)
    # Of a chunk that is full nobody knows how much more there was, so a little less is aimed at.
    fitting = batch // 2 if fullest >= chunk else (chunk - 1) * len(ended) // max(fullest, 1)
    return max(min(fitting, 2 * batch, BATCH), 1)
