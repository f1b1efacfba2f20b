"""What a replica learns from Postgres of what the leader has decided; all else it has heard itself.

A follower learns of names that are overdue or end in its own book, so that the dead leave it; so do strangers that the
leader has turned away, or that it has lost before they had an epoch. All others take turns: whoever was ended and
granted a new epoch between two looks is well by all that is heard. A replica that takes over learns everything once,
before it acts: which epochs are open, and whose they are. It extends nothing that it heard itself; only a life of which
it did not know is owed a full ttl.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from liveness.errors import DatabaseAwayError
from liveness.hearing import Hearing
from liveness.lease import Lease, Proof
from liveness.leases import LeaseTable
from liveness.store import Ended, Life, Store

log = structlog.get_logger("liveness.follow")

# Names in one look. What is left is looked at the next time.
BATCH = 5_000
# Names in one look of which nothing calls for one. With 100,000 workers each has its turn within minutes; what an
# epoch is called in a follower's book is shown, and nothing is done by it before that replica takes over.
TURN = 1_000
# How long a follower keeps an arrival, for a leader that ends, or hears nothing, before it has looked. To look once
# more takes nothing that is not a former life's.
ARRIVAL_SECONDS = 600.0


class Learned(msgspec.Struct):
    """What one look brought, in lives."""

    open: int = 0
    over: int = 0


class Follow:
    """Keeps the book in step with Postgres. `default_ttl` in seconds; `clock` is the loop's monotonic time."""

    def __init__(
        self, *, book: LeaseTable, hearing: Hearing, store: Store, default_ttl: float, clock: Callable[[], float]
    ) -> None:
        self._book = book
        self._hearing = hearing
        self._store = store
        self._default_ttl = default_ttl
        self._clock = clock
        self._next = 0
        # Who has not had its turn yet.
        self._left: list[Lease] = []
        # Whether Postgres did not answer when it was asked last.
        self.away = False
        self._arrivals: dict[str, float] = {}
        # Counts the times that we took over: what was read before is not true any more.
        self._taken_over = 0

    async def run_once(self) -> Learned:
        """Learn of those that end, wait for an epoch or are overdue; of others in turn. Raises DatabaseAwayError."""
        self._drop_old_arrivals()
        now = self._hearing.now
        names = dict.fromkeys((*self._book.endings, *self._book.wanting))
        names.update(dict.fromkeys(lease.worker for _, lease in self._book.lines.overdue(now)))
        # Where there are more, each look begins where the last one ended.
        start = self._next if self._next < len(names) else 0
        looked_at = list(names)[start : start + BATCH]
        self._next = start + BATCH
        turn = self._turn()
        if not (looked_at or turn):
            return Learned()
        # Who asks for those that are well only takes turns all the time, and most answers are a moment away.
        self.away |= bool(looked_at)
        try:
            learned = await self._learn(looked_at, turn)
        except DatabaseAwayError:
            self.away = True
            raise
        self.away = False
        return learned

    def _turn(self) -> list[str]:
        if not self._left:
            # A million names would stop the loop for as long as it takes to make them.
            self._left = list(self._book)
        turn = [lease.worker for lease in self._left[-TURN:] if self._book.find(lease.name) is lease]
        del self._left[-TURN:]
        return turn

    def _drop_old_arrivals(self) -> None:
        # The leader has looked at them; and a beginning that was reckoned long ago is off by what the clocks drift.
        now = self._clock()
        arrivals = self._book.arrivals
        self._arrivals = {worker: self._arrivals.get(worker, now) for worker in arrivals}
        for worker, seen_at in self._arrivals.items():
            if now - seen_at > ARRIVAL_SECONDS:
                self._book.arrived(worker, arrivals[worker].incarnation)

    async def catch_up(self) -> Learned:
        """Learn everything. Raises DatabaseAwayError."""
        self._taken_over += 1
        # Whoever leads asks after nobody: it must not keep those whom the book has forgotten.
        self._left.clear()
        learned = await self._learn(None)
        formers = await self._store.epochs.formers(None)
        self._book.incarnations.tidy(self._book.get)
        for start in range(0, len(formers), BATCH):
            if start:
                await asyncio.sleep(0)
            some = formers[start : start + BATCH]
            self._book.incarnations.restore((one.worker, one.incarnation, one.epoch) for one in some)
        log.info("caught_up", **msgspec.structs.asdict(learned))
        # Last: a look that was begun until now may be answered when we have ended lives ourselves.
        self._taken_over += 1
        return learned

    async def _learn(self, names: list[str] | None, others: Sequence[str] = ()) -> Learned:
        done = Learned()
        began = self._taken_over
        asked = None if names is None else list(dict.fromkeys((*names, *others)))
        # What is heard of those while we ask is newer than the answer.
        as_heard = {worker: self._heard_of(worker) for worker in set(others).difference(names or ())}
        open_lives = {life.worker: life for life in await self._store.epochs.open_lives(asked)}
        leases = list(self._book) if names is None else [lease for name in names if (lease := self._book.get(name))]
        unopened = [lease for lease in leases if lease.worker not in open_lives]
        # Never granted, or granted and ended while we did not look? Only in the first case is there anything to end:
        # a life that was heard last before an epoch of its name ended has ended with it.
        ended_ago = await self._store.epochs.ended_ago([lease.worker for lease in unopened]) if unopened else {}
        if began != self._taken_over:
            return done
        done.over = self._forget_ended(unopened, ended_ago)
        for position, life in enumerate(open_lives.values()):
            if life.worker not in as_heard or as_heard[life.worker] == self._heard_of(life.worker):
                self._learn_of(life)
            if position % BATCH == BATCH - 1:
                # 100,000 of them would keep the loop from hearing.
                await asyncio.sleep(0)
        done.open = len(open_lives)
        if names is not None:
            await self._forget_strangers([lease for lease in unopened if lease.worker not in ended_ago])
        return done

    def _heard_of(self, worker: str) -> tuple[object, ...]:
        lease = self._book.get(worker)
        return () if lease is None else (lease.epoch, lease.incarnation, lease.ending is None)

    async def _forget_strangers(self, never_granted: Sequence[Lease]) -> None:
        overdue = [lease for lease in never_granted if self._is_overdue(lease)]
        # Who has work, or a row in the registry, is to be ended by whoever leads, and that may be us soon.
        known = await self._store.epochs.known([lease.worker for lease in overdue]) if overdue else set()
        for lease in overdue:
            worker = lease.worker
            if worker not in known and self._book.get(worker) is lease and self._is_overdue(lease):
                self._book.forget(worker)

    def _is_overdue(self, lease: Lease) -> bool:
        # One that ends stands in no line, and is looked at again when it goes on.
        if lease.epoch is not None or lease.ending is not None:
            return False
        return self._book.lines.deadline(lease) <= self._hearing.now

    def _learn_of(self, life: Life) -> None:
        if life.epoch is not None:
            ttl = life.ttl or self._default_ttl
            self._book.learn(life.worker, self._hearing.now, ttl, life.epoch, life.incarnation, life.hello_uptime)

    def _forget_ended(self, leases: Sequence[Lease], ended_ago: Mapping[str, Ended]) -> int:
        over = 0
        for lease in leases:
            last = ended_ago.get(lease.worker)
            ended = self._has_ended(lease, last)
            now = self._hearing.now
            if ended and last is not None and last.restarted and self._book.incarnations.successor(lease, now):
                # The leader believed before us that the one heard beside it is the next.
                self._book.end(lease.worker, now, Proof("restarted"))
            over += ended or lease.epoch is not None
            if ended and (lease.ending is None or lease.ending.reborn_at is None):
                self._book.forget(lease.worker)
            elif lease.epoch is not None:
                self._book.ended(lease.worker, lease.epoch, self._hearing.now, elsewhere=True)
            elif ended:
                # The former life is over, and the next one wants an epoch.
                self._book.reborn(lease.worker, self._hearing.now)
        return over

    def _has_ended(self, lease: Lease, last: Ended | None) -> bool:
        if last is None or (lease.after is not None and last.epoch <= lease.after):
            # That was a former life, and we know of it.
            return False
        if last.restarted and lease.ending is None and lease.incarnation not in {None, last.incarnation}:
            # By the beginning of the process that we heard.
            return False
        # Of the life that may have ended; the next one may be heard already.
        last_beat = lease.last_beat if lease.ending is None else lease.ending.last_beat
        since = lease.since if last_beat is None else last_beat
        return last.ago < self._hearing.real_ago(since, self._clock())
