"""The way out: a lease lapses, or a goodbye ends it, and Postgres is asked for its verdict until it has given one.

What is decided here is decided from the book alone, synchronously; then it is offered to Postgres, whose transaction
checks it again. A beat that comes before the verdict revives a lapsed lease, and its case is not offered any more; one
that comes while the transaction runs begins the name's next life (`LeaseTable.ended`).
"""

import asyncio
from collections.abc import Callable, Sequence

import msgspec
import structlog

from liveness.apart import Refusals, apart
from liveness.hearing import Hearing
from liveness.lease import Ending, Lease
from liveness.leases import LeaseTable
from liveness.store import Store
from liveness.verdicts import Case, Outcome, Verdict

log = structlog.get_logger("liveness.expiry")

# Epochs that one transaction ends. More would keep the host's rows locked longer for little: at 500 the cost of the
# transaction itself is a few per cent of the whole.
BATCH = 500
# A beat in the registry counts as somebody else's only if it is this much younger (seconds) than the last one that we
# heard: our own checkpoint is written with the age of the beat, a statement's latency too late.
CHECKPOINT_SLACK = 1.0


class Expired(msgspec.Struct):
    """What one round did."""

    ended: int = 0
    spared: int = 0
    over: int = 0
    refused: int = 0
    items: int = 0


class Expiry:
    """Ends lives. `clock` is the loop's monotonic time; `on_new_life` is called when an ended name lives on."""

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        store: Store,
        clock: Callable[[], float],
        on_new_life: Callable[[], None],
        on_ended: Callable[[], None],
    ) -> None:
        self._book = book
        self._hearing = hearing
        self._store = store
        self._clock = clock
        self._on_new_life = on_new_life
        self._on_ended = on_ended
        self._refusals = Refusals(clock)
        # The round and an operator's command must not offer the same cases at once.
        self._one_at_a_time = asyncio.Lock()

    async def run_once(self) -> Expired:
        """Mark what has lapsed and settle every life that waits for a verdict.

        Raises DatabaseAwayError: whatever was not settled waits in the book for the next round.
        """
        for lease in self._book.lapse(self._now()):
            log.info("lease_lapsed", worker=lease.worker, epoch=lease.epoch, ttl=lease.ttl)
        # A life without an epoch waits for its grant.
        due = [
            worker
            for worker, lease in self._book.endings.items()
            if lease.epoch is not None and worker not in self._refusals
        ]
        return await self.settle(due)

    async def settle(self, workers: Sequence[str]) -> Expired:
        """Offer the lives of `workers` that wait for a verdict to Postgres. Raises DatabaseAwayError."""
        done = Expired()
        async with self._one_at_a_time:
            for start in range(0, len(workers), BATCH):
                batch = await self._without_ambiguous(workers[start : start + BATCH])
                for worker, error in await apart(batch, lambda some: self._offer(some, done)):
                    self._refusals.add(worker)
                    done.refused += 1
                    log.error("reclaim_refused", worker=worker, cause=str(error))
        return done

    async def _offer(self, workers: Sequence[str], done: Expired) -> None:
        now = self._now()
        cases = [
            case_of(lease, lease.ending, now, self._hearing)
            for worker in workers
            if (lease := self._book.endings.get(worker)) is not None and lease.ending is not None
        ]
        if cases:
            for verdict in await self._store.reclaims.settle(cases):
                self._take(verdict, done)
            self._on_ended()

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
                self._book.spared(worker, lease.epoch, self._now())
        return [worker for worker in workers if worker not in ambiguous]

    def _take(self, verdict: Verdict, done: Expired) -> None:
        if verdict.epoch is None or verdict.outcome is Outcome.HELD:
            # Somebody has it locked just now: the next round offers it again.
            return
        now = self._now()
        if verdict.outcome is Outcome.SPARED:
            done.spared += 1
            self._book.spared(verdict.worker, verdict.epoch, now - (verdict.heard_ago or 0.0))
            log.info("lease_spared", worker=verdict.worker, epoch=verdict.epoch, heard_ago=verdict.heard_ago)
            return
        if verdict.outcome is Outcome.ENDED:
            done.ended += 1
            done.items += sum(verdict.items.values())
            lease = self._book.endings.get(verdict.worker)
            reason = "lapsed" if lease is None or lease.ending is None else lease.ending.reason
            log.info("life_ended", worker=verdict.worker, epoch=verdict.epoch, reason=reason, items=dict(verdict.items))
        else:
            done.over += 1
            log.info("epoch_already_over", worker=verdict.worker, epoch=verdict.epoch)
        if self._book.ended(verdict.worker, verdict.epoch, now) is not None:
            self._on_new_life()

    def _now(self) -> float:
        return self._hearing.advance(self._clock())


def case_of(lease: Lease, ending: Ending, now: float, hearing: Hearing) -> Case:
    """Return what Postgres is offered about a life that ends, with the evidence for it. Pure."""
    silent_for = None if ending.last_beat is None else now - ending.last_beat
    # Since when we have listened in vain; for a lease that was restored, since then.
    since = lease.since if ending.last_beat is None else ending.last_beat
    return Case(
        worker=lease.worker,
        epoch=lease.epoch,
        incarnation=ending.incarnation,
        reason=ending.reason,
        ttl=ending.ttl,
        silent_for=None if ending.last_beat is None else hearing.real_ago(ending.last_beat),
        overdue=None if ending.proof else hearing.real_ago(ending.deadline),
        spare_within=None if ending.proof else min(ending.ttl, max(hearing.real_ago(since) - CHECKPOINT_SLACK, 0.0)),
        # What was touched since the next life was first heard is the next life's.
        untouched_for=None if ending.reborn_at is None else hearing.real_ago(ending.reborn_at),
        evidence={
            "why": _sentence(ending, silent_for, now - since),
            "ttl": ending.ttl,
            "silent_for": silent_for,
            "listened_for": now - since,
            "overdue": None if ending.proof else now - ending.deadline,
            "hearing": {"now": now, "not_counted": hearing.lost},
            **({"details": dict(ending.details)} if ending.details else {}),
        },
    )


def _sentence(ending: Ending, silent_for: float | None, listened: float) -> str:
    match ending.reason:
        case "released":
            return "the worker said goodbye"
        case "died":
            return "whoever saw the process end said so"
        case "operator":
            return "an operator ended it"
        case _ if silent_for is None:
            return f"nothing was heard of it in {listened:.3f} s of listening; ttl {ending.ttl:g} s"
        case _:
            return f"no heartbeat for {silent_for:.3f} s of hearing; ttl {ending.ttl:g} s"
