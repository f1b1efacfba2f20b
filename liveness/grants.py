"""The duty that tells Postgres of lives: new ones get an epoch, changes are kept, recoveries are told.

None of it happens per heartbeat: a life wants an epoch once, and what changes in it is written in one batch a round. A
life whose epoch was just issued counts as changed, too, if it was heard: what has to be told of it then is told until
Postgres has taken it.

When more are wanting than a statement takes, those that Postgres knows come first; and of those that it does not know,
who lapses before its turn has come leaves the book again: it owns no work, and nobody ever told it that it lives.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice

import msgspec
import structlog

from liveness.apart import Refusals, apart
from liveness.errors import DatabaseAwayError, DatabaseRefusedError
from liveness.hearing import Hearing
from liveness.lease import Lease
from liveness.leases import LeaseTable
from liveness.measures import WELCOME
from liveness.messages import Superseded
from liveness.settings import Settings
from liveness.store import Life, Store
from liveness.tallies import mode_of
from liveness.verdicts import Recovery

log = structlog.get_logger("liveness.grants")

# Lives in one statement. At some 10 us each it keeps the epochs' rows locked for a few milliseconds.
BATCH = 1_000
# When more lives than a batch are wanting, so many of them are looked at to grant those first that the host knows. Half
# as many after each time that Postgres took so long (seconds) and had not answered, as where the host's tables lack an
# index, until nobody is left who could be granted.
RANKED_AT_ONCE, SLOW_SECONDS = 20_000, 3.0


class Granted(msgspec.Struct):
    """What one round did, in lives."""

    granted: int = 0
    updated: int = 0


class Grants:
    """Grants epochs. `publish` sends a message on the bus, at most once; `clock` is the loop's monotonic time."""

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        store: Store,
        settings: Settings,
        publish: Callable[[str, bytes], Awaitable[bool]],
        clock: Callable[[], float],
    ) -> None:
        # Names heard again after their end: by its reason, by whose process it is now, and by its mode.
        self.recovered: Counter[tuple[str, str, str]] = Counter()
        self._book = book
        self._hearing = hearing
        self._store = store
        self._publish = publish
        self._subjects = settings.subjects
        self._default_ttl = settings.heartbeat_timeout
        self._acts = settings.mode == "act"
        self._register = settings.registers and self._acts
        self._refusals = Refusals(clock)
        self._clock = clock
        self._ranked = RANKED_AT_ONCE

    @property
    def due(self) -> bool:
        """Whether anybody may have an epoch whom Postgres has not just refused."""
        return next(self._eligible(), None) is not None

    async def run_once(self) -> Granted:
        """Grant what is wanting, write what changed. Raises DatabaseAwayError: the next round does what is left."""
        done = Granted()
        while wanting := list(islice(self._eligible(), self._ranked)):
            before = len(self._book.wanting)
            line = await self._first_in_line(wanting)
            for start in range(0, len(line), BATCH):
                # One may have left, or said hello, since it was asked for.
                batch = [lease for lease in line[start : start + BATCH] if self._still_wants(lease)]
                done.granted += await self.grant(batch)
            if len(self._book.wanting) >= before and not any(lease.worker in self._refusals for lease in wanting):
                # Others arrived, or the name's open epoch ended just now: the next round sees clearer.
                break
        if next(self._eligible(), None) is None:
            self._ranked = RANKED_AT_ONCE
        changed = [lease for lease in self._book.changed.values() if lease.epoch is not None]
        for start in range(0, len(changed), BATCH):
            await self._update(changed[start : start + BATCH])
        done.updated = len(changed)
        return done

    def _eligible(self) -> Iterator[Lease]:
        return (lease for name, lease in self._book.wanting.items() if self._may_have_one(name))

    def _may_have_one(self, name: str) -> bool:
        # Who said hello is told its epoch, so that is not issued before it is known whether a former life has to end.
        # The life that ends needs one to end under.
        lease, arrival = self._book.get(name), self._book.arrivals.get(name)
        ends = lease is not None and lease.ending is not None
        return name not in self._refusals and (ends or arrival is None or not arrival.greeted)

    def _still_wants(self, lease: Lease) -> bool:
        return self._book.wanting.get(lease.worker) is lease and self._may_have_one(lease.worker)

    async def grant(self, leases: Sequence[Lease]) -> int:
        """Have epochs issued for these leases; return for how many that went well. Raises DatabaseAwayError."""
        refused = await apart(leases, self._grant)
        for lease, error in refused:
            self._refusals.add(lease.worker)
            log.error("grant_refused", worker=lease.worker, cause=str(error))
        return len(leases) - len(refused)

    async def _first_in_line(self, wanting: Sequence[Lease]) -> Sequence[Lease]:
        """Return those whom the host knows, however many; of the others no more than fill up a batch."""
        if len(wanting) <= BATCH:
            return wanting
        asked_at = self._clock()
        try:
            known = await self._store.epochs.known([lease.worker for lease in wanting])
        except DatabaseRefusedError as error:
            # One name that Postgres cannot even read; granting isolates it, in order of arrival.
            log.warning("ranking_refused", cause=str(error))
            known = set()
        except DatabaseAwayError:
            if self._clock() - asked_at >= SLOW_SECONDS:
                # It was too much at once. A batch alone is not ranked at all, and is granted.
                self._ranked = max(self._ranked // 2, BATCH)
            raise
        wanting = [lease for lease in wanting if not self._has_left(lease, known)]
        line = sorted(wanting, key=lambda lease: lease.worker not in known)
        return line[: max(len(known), BATCH)]

    def _has_left(self, lease: Lease, known: set[str]) -> bool:
        worker, ending = lease.worker, lease.ending
        if worker in known or worker in self._book.unproven or ending is None or ending.proof:
            return False
        if self._book.wanting.get(worker) is lease:
            self._book.forget(worker)
        return True

    async def _grant(self, leases: Sequence[Lease]) -> None:
        granted = await self._store.epochs.grant(self._life(lease) for lease in leases)
        for worker, epoch in granted.epochs.items():
            self._book.granted(worker, epoch)
        for life in granted.others:
            # Open, but another incarnation's: of a life that we did not know.
            if life.epoch is not None:
                ttl = life.ttl or self._default_ttl
                self._book.learn(life.worker, self._hearing.now, ttl, life.epoch, life.incarnation, life.hello_uptime)

    async def _update(self, leases: Sequence[Lease]) -> None:
        # A life that ends has nothing to be kept.
        current = [lease for lease in leases if lease.ending is None]
        written = {lease.worker: _kept(lease) for lease in current}
        heard = {lease.worker: lease.epoch for lease in current if lease.epoch is not None}
        for lease, error in await apart(
            current, lambda some: self._store.epochs.update(self._life(one) for one in some)
        ):
            log.error("update_refused", worker=lease.worker, cause=str(error))
        if self._register:
            for name, error in await apart(list(heard), self._store.host.register):
                log.error("register_refused", worker=name, cause=str(error))
        for name, error in await apart(list(heard), lambda names: self._recover({one: heard[one] for one in names})):
            log.error("recover_refused", worker=name, cause=str(error))
        if self._acts:
            await self._store.epochs.set_back()
        for lease in leases:
            # What changed again while this was being written stays for the next round.
            if written.get(lease.worker, _kept(lease)) == _kept(lease):
                self._book.changed.pop(lease.worker, None)

    def _life(self, lease: Lease) -> Life:
        # A life that ended before it had its epoch gets one to end under: its own, not the next process's. One under
        # whose name a former life's work may still be found is not named yet: who comes after us has to look, too.
        incarnation, hello_uptime = lease.incarnation, lease.hello_uptime
        if lease.ending is not None:
            incarnation, hello_uptime = lease.ending.incarnation, None
        elif lease.worker in self._book.arrivals or self._book.incarnations.is_open(lease.worker):
            incarnation = hello_uptime = None
        return Life(lease.worker, lease.epoch, incarnation, lease.stated, hello_uptime)

    async def _recover(self, heard: dict[str, int]) -> None:
        for recovery in await self._store.epochs.recover(heard):
            self._count(recovery)
            # A released worker knows, and in mode observe nothing was taken from anybody.
            if recovery.reason == "released" or recovery.observed:
                continue
            lease = self._book.get(recovery.worker)
            if recovery.reason == "restarted":
                if recovery.incarnation is None or (lease is not None and lease.incarnation == recovery.incarnation):
                    # Nobody is known to whom it could be said.
                    continue
            else:
                log.warning(
                    "worker_recovered",
                    worker=recovery.worker,
                    epoch=recovery.new_epoch,
                    former_epoch=recovery.epoch,
                    former_reason=recovery.reason,
                )
            message = Superseded(
                epoch=recovery.epoch,
                incarnation=recovery.incarnation,
                new_epoch=recovery.new_epoch,
                new_incarnation=None if lease is None else lease.incarnation,
            )
            await self._publish(self._subjects.superseded(recovery.worker), msgspec.json.encode(message))

    def _count(self, recovery: Recovery) -> None:
        if recovery.reason in WELCOME:
            return
        lease = self._book.get(recovery.worker)
        now = None if lease is None else lease.incarnation
        if recovery.incarnation is None or now is None:
            process = "unknown"
        else:
            process = "same" if now == recovery.incarnation else "another"
        self.recovered[recovery.reason, process, mode_of(observed=recovery.observed)] += 1


def _kept(lease: Lease) -> tuple[object, ...]:
    return lease.incarnation, lease.stated, lease.hello_uptime
