"""The duty that tells Postgres of lives: new ones get an epoch, changes are kept, recoveries are told.

None of it happens per heartbeat: a life wants an epoch once, and what changes in it is written in one batch a round. A
life whose epoch was just issued counts as changed, too, if it was heard: what has to be told of it then is told until
Postgres has taken it.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from liveness.apart import Refusals, apart
from liveness.errors import DatabaseRefusedError
from liveness.lease import Lease
from liveness.leases import LeaseTable
from liveness.messages import Superseded
from liveness.settings import Settings
from liveness.store import Life, Store
from liveness.subjects import Subjects

log = structlog.get_logger("liveness.grants")

# Lives in one statement. At some 10 us each it keeps the epochs' rows locked for a few milliseconds.
BATCH = 1_000
# When more lives than a batch are wanting, so many of them are looked at to grant those first that the host knows.
RANKED_AT_ONCE = 20_000


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
        store: Store,
        settings: Settings,
        publish: Callable[[str, bytes], Awaitable[bool]],
        clock: Callable[[], float],
    ) -> None:
        self._book = book
        self._store = store
        self._publish = publish
        self._subjects = Subjects(settings.subject_prefix)
        self._acts = settings.mode == "act"
        self._register = settings.register_unknown_workers and self._acts
        self._refusals = Refusals(clock)

    async def run_once(self) -> Granted:
        """Grant what is wanting, write what changed. Raises DatabaseAwayError: the next round does what is left."""
        done = Granted()
        while wanting := [lease for name, lease in self._book.wanting.items() if name not in self._refusals]:
            done.granted += await self.grant(await self._first_in_line(wanting))
        changed = [lease for lease in self._book.changed.values() if lease.epoch is not None]
        for start in range(0, len(changed), BATCH):
            await self._update(changed[start : start + BATCH])
        done.updated = len(changed)
        return done

    async def grant(self, leases: Sequence[Lease]) -> int:
        """Have epochs issued for these leases; return for how many that went well. Raises DatabaseAwayError."""
        refused = await apart(leases, self._grant)
        for lease, error in refused:
            self._refusals.add(lease.worker)
            log.error("grant_refused", worker=lease.worker, cause=str(error))
        return len(leases) - len(refused)

    async def _first_in_line(self, wanting: Sequence[Lease]) -> Sequence[Lease]:
        if len(wanting) <= BATCH:
            return wanting
        looked_at = list(wanting[:RANKED_AT_ONCE])
        try:
            known = await self._store.epochs.known([lease.worker for lease in looked_at])
        except DatabaseRefusedError as error:
            # One name that Postgres cannot even read; granting isolates it, in order of arrival.
            log.warning("ranking_refused", cause=str(error))
            known = set()
        looked_at.sort(key=lambda lease: lease.worker not in known)
        return looked_at[:BATCH]

    async def _grant(self, leases: Sequence[Lease]) -> None:
        granted = await self._store.epochs.grant(_life(lease) for lease in leases)
        for worker, epoch in granted.items():
            self._book.granted(worker, epoch)

    async def _update(self, leases: Sequence[Lease]) -> None:
        # A life that ends has nothing to be kept.
        current = [lease for lease in leases if lease.ending is None]
        written = {lease.worker: (lease.incarnation, lease.stated) for lease in current}
        heard = {lease.worker: lease.epoch for lease in current if lease.epoch is not None}
        for lease, error in await apart(current, lambda some: self._store.epochs.update(_life(one) for one in some)):
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
            if written.get(lease.worker, (lease.incarnation, lease.stated)) == (lease.incarnation, lease.stated):
                self._book.changed.pop(lease.worker, None)

    async def _recover(self, heard: dict[str, int]) -> None:
        for recovery in await self._store.epochs.recover(heard):
            # A released worker knows, and in mode observe nothing was taken from anybody.
            if recovery.reason == "released" or recovery.observed:
                continue
            log.warning(
                "worker_recovered",
                worker=recovery.worker,
                epoch=recovery.new_epoch,
                former_epoch=recovery.epoch,
                former_reason=recovery.reason,
            )
            message = Superseded(epoch=recovery.epoch, incarnation=recovery.incarnation, new_epoch=recovery.new_epoch)
            await self._publish(self._subjects.superseded(recovery.worker), msgspec.json.encode(message))


def _life(lease: Lease) -> Life:
    return Life(lease.worker, lease.epoch, lease.incarnation, lease.stated)
