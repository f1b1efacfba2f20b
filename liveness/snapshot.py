"""How the service and its workers are at a moment: the one answer that page, terminal and scripts get."""

import asyncio
import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Literal

import msgspec

import liveness
from liveness.answers import PAGE, Expired, Moved, StatusAnswer, StatusRequest, WorkerStatus
from liveness.assembly import Assembly
from liveness.errors import LivenessError
from liveness.evidence import because
from liveness.lease import Lease
from liveness.settings import Settings
from liveness.store import refused_rows

# Leases whose names are looked at in one go: some ten milliseconds of the loop.
LOOKED_AT_ONCE = 20_000


class Stored(msgspec.Struct):
    """What Postgres says of it."""

    # None: it has not said.
    running: Mapping[str, int] | None = None
    outbox: int | None = None
    outbox_oldest: float | None = None
    refused: int = 0
    ends: Sequence[Expired] = ()
    moves: Sequence[Moved] = ()
    trouble: str | None = None


class Snapshots:
    """Takes them. `patience`: for how many seconds at most Postgres is waited for."""

    def __init__(self, parts: Assembly, patience: float) -> None:
        self._parts = parts
        self._patience = patience
        # A question that was not answered in time.
        self._late: asyncio.Task[Stored] | None = None

    async def take(self, request: StatusRequest, troubles: Sequence[str]) -> StatusAnswer:
        """Return how it is. `troubles`: what does not work, a line each."""
        parts = self._parts
        page, matching = await self._page(request)
        stored = await self._stored([lease.worker for lease in page], request.recent)
        # What Postgres was asked took a moment, in which they may have gone.
        page = [lease for lease in page if parts.book.find(lease.name) is lease]
        now = parts.hearing.now
        return StatusAnswer(
            version=liveness.__version__,
            mode=parts.settings.mode,
            troubles=[*troubles, *([] if stored.trouble is None else [f"Postgres: {stored.trouble}"])],
            term=parts.store.leader.term,
            leads=parts.leadership.leading,
            nats=parts.bus.connected,
            postgres=stored.trouble is None,
            hearing=not parts.hearing.deaf(parts.clock()),
            gaps=parts.hearing.gaps,
            not_heard=parts.hearing.lost,
            storms=parts.storms.held(now),
            refused=stored.refused,
            conflicts=sorted(parts.book.incarnations.conflicts)[:PAGE],
            uptime=parts.clock() - parts.began,
            leases=len(parts.book),
            matching=matching,
            wanting=len(parts.book.wanting),
            ending=len(parts.book.endings) + unmarked(parts),
            outbox=stored.outbox,
            outbox_oldest=stored.outbox_oldest,
            counts=dict(parts.intake.counts),
            paused=parts.pausing.pause,
            bounds=parts.bounds.hit(),
            suspects=sorted(islice(self._suspects(now), PAGE)),
            wedged=sorted(islice(parts.doubting.wedged(), PAGE)),
            workers=[self._worker(lease, stored.running, now) for lease in page],
            ends=list(stored.ends),
            moves=list(stored.moves),
        )

    async def _page(self, request: StatusRequest) -> tuple[list[Lease], int]:
        """Return the leases that were asked for, and how many there are with that name."""
        book, end = self._parts.book, request.offset + min(request.limit, PAGE)
        if not request.name:
            return list(islice(book.soonest(), request.offset, end)), len(book)
        wanted = request.name.encode(errors="replace").lower()
        leases, found, count = list(book), list[Lease](), 0
        for start in range(0, len(leases), LOOKED_AT_ONCE):
            batch = [lease for lease in leases[start : start + LOOKED_AT_ONCE] if wanted in lease.name.lower()]
            count += len(batch)
            found = heapq.nsmallest(end, [*found, *batch], key=self._order)
            # The heartbeats have their turn.
            await asyncio.sleep(0)
        return found[request.offset :], count

    def _order(self, lease: Lease) -> float:
        return 0.0 if lease.ending is not None else self._parts.book.lines.deadline(lease)

    async def _stored(self, workers: Sequence[str], recent: int) -> Stored:
        if self._late is not None and not self._late.done():
            return Stored(trouble=f"no answer within {self._patience:g} s")
        asking = asyncio.create_task(self._ask(workers, recent))
        await asyncio.wait({asking}, timeout=self._patience)
        if not asking.done():
            self._late = asking
            return Stored(trouble=f"no answer within {self._patience:g} s")
        return asking.result()

    async def _ask(self, workers: Sequence[str], recent: int) -> Stored:
        store, stored = self._parts.store, Stored()
        try:
            stored.outbox, stored.outbox_oldest = await store.outbox.depth()
            stored.running = await store.host.running(workers) if workers else {}
            _, stored.refused = await refused_rows(store.database, 1)
            await self._parts.pausing.look()
            if recent:
                lives, stored.moves = await store.history.recent(recent)
                stored.ends = [
                    Expired(
                        worker=life.worker,
                        epoch=life.epoch,
                        reason=life.end.reason,
                        because=because(life.worker, life),
                        at=life.end.expired.at,
                        ago=life.end.expired.ago,
                        observed=life.end.observed,
                        finished=life.end.finished is not None,
                        recovered=life.end.recovered is not None,
                    )
                    for life in lives
                    if life.end is not None
                ]
        except LivenessError as error:
            stored.trouble = str(error)
        return stored

    def _suspects(self, now: float) -> Iterator[str]:
        # Who has lapsed stays among them until somebody looks again, and is more than that.
        book = self._parts.book
        for worker in islice(self._parts.suspects.suspected, LOOKED_AT_ONCE):
            lease = book.get(worker)
            if lease is not None and not book.lines.is_past(lease, now):
                yield worker

    def _worker(self, lease: Lease, running: Mapping[str, int] | None, now: float) -> WorkerStatus:
        return WorkerStatus(
            worker=lease.worker,
            state=self._state(lease, now),
            incarnation=lease.incarnation,
            epoch=lease.epoch,
            ttl=lease.ttl,
            remaining=0.0 if lease.ending is not None else max(self._parts.book.lines.deadline(lease) - now, 0.0),
            silent_for=None if lease.last_beat is None else max(now - lease.last_beat, 0.0),
            running=None if running is None else running.get(lease.worker, 0),
        )

    def _state(self, lease: Lease, now: float) -> Literal["live", "draining", "suspect", "wedged", "lapsed", "ending"]:
        if lease.ending is not None:
            return "ending" if lease.ending.proof else "lapsed"
        if self._parts.book.lines.is_past(lease, now):
            return "lapsed"
        return self._parts.doubting.state_of(lease)


def unmarked(parts: Assembly) -> int:
    """Return how many leases have lapsed that nobody has marked here."""
    if not parts.leadership.leading:
        # Who follows marks none. It has counted them when it looked for storms, a second ago at most.
        return parts.storms.overdue
    # Who acts marks them as they lapse; but while Postgres is away, it may have to ask that something first.
    return sum(1 for _ in parts.book.lines.overdue(parts.hearing.now))


def starting(settings: Settings, troubles: Sequence[str]) -> StatusAnswer:
    """Return what can be said of a service that is about to start."""
    return StatusAnswer(
        version=liveness.__version__,
        mode=settings.mode,
        troubles=list(troubles),
        term=None,
        leads=False,
        nats=False,
        postgres=not any(trouble.startswith("Postgres") for trouble in troubles),
        hearing=False,
        gaps=0,
        not_heard=0.0,
        storms=[],
        conflicts=[],
        uptime=0.0,
        leases=0,
        matching=0,
        wanting=0,
        ending=0,
        outbox=None,
        outbox_oldest=None,
        counts={},
        workers=[],
    )
