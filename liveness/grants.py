"""The duty that tells Postgres of lives: new ones get an epoch, changes are kept, recoveries are told.

None of it happens per heartbeat: a life wants an epoch once, and what changes in it is written in one batch a round.
"""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog

from liveness.leases import Lease, LeaseTable
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
    """What one round did."""

    granted: int = 0
    updated: int = 0


class Grants:
    """Grants epochs. `publish` sends a message on the bus, at most once."""

    def __init__(
        self, *, book: LeaseTable, store: Store, settings: Settings, publish: Callable[[str, bytes], Awaitable[bool]]
    ) -> None:
        self._book = book
        self._store = store
        self._publish = publish
        self._subjects = Subjects(settings.subject_prefix)
        self._register = settings.register_unknown_workers and settings.mode == "act"

    async def run_once(self) -> Granted:
        """Grant what is wanting, write what changed. Raises DatabaseAwayError: the next round does what is left."""
        done = Granted()
        while self._book.wanting:
            done.granted += await self.grant(await self._first_in_line())
        if self._book.changed:
            await self._update(list(self._book.changed.values()), done)
        return done

    async def _first_in_line(self) -> list[Lease]:
        wanting = list(self._book.wanting.values())[:RANKED_AT_ONCE]
        if len(wanting) > BATCH:
            known = await self._store.epochs.known([lease.worker for lease in wanting])
            wanting.sort(key=lambda lease: lease.worker not in known)
        return wanting[:BATCH]

    async def grant(self, leases: Sequence[Lease]) -> int:
        """Have epochs issued for these leases; return how many. Raises DatabaseAwayError."""
        asked = {lease.worker: lease for lease in leases}
        granted = await self._store.epochs.grant(_life(lease) for lease in leases)
        for worker, epoch in granted.items():
            self._book.granted(worker, epoch)
        heard = {worker: epoch for worker, epoch in granted.items() if asked[worker].last_beat is not None}
        if self._register and heard:
            await self._store.host.register(list(heard))
        await self._recover(heard)
        return len(granted)

    async def _update(self, leases: Sequence[Lease], done: Granted) -> None:
        # A life that ends has nothing to be kept, and one that wants an epoch brings its fields along.
        current = [lease for lease in leases if lease.epoch is not None and lease.ending is None]
        written = {lease.worker: (lease.incarnation, lease.stated) for lease in current}
        await self._store.epochs.update(_life(lease) for lease in current)
        done.updated += len(current)
        heard = {lease.worker: lease.epoch for lease in current if lease.epoch is not None}
        for lease in leases:
            # What changed again while this was being written stays for the next round.
            if written.get(lease.worker, (lease.incarnation, lease.stated)) == (lease.incarnation, lease.stated):
                self._book.changed.pop(lease.worker, None)
        await self._recover(heard)

    async def _recover(self, heard: dict[str, int]) -> None:
        recoveries = await self._store.epochs.recover(heard) if heard else []
        if recoveries:
            await self._store.epochs.set_back()
        for recovery in recoveries:
            if recovery.reason == "released":
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
