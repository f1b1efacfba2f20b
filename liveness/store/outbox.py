"""Events that are committed and not yet known to be published."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from liveness.store.database import Database
from liveness.store.leader import Leader
from liveness.store.statements import Statements
from liveness.subjects import Subjects


class Pending(msgspec.Struct, frozen=True):
    """One event of the outbox. `transaction_id` is that of the transaction that committed it; `data` is JSON."""

    seq: int
    id: str
    type: str
    subject: str
    worker: str
    observed: bool
    transaction_id: int
    time: str
    data: str


class Outbox:
    """The outbox, as its relay sees it, and whoever has news that concern no worker."""

    def __init__(
        self, database: Database, leader: Leader, statements: Statements, *, observed: bool, subjects: Subjects
    ) -> None:
        self._database = database
        self._leader = leader
        self._statements = statements
        self._observed = observed
        self._subjects = subjects

    async def add(self, type: str, subject: str, data: Mapping[str, Any]) -> None:  # noqa: A002 - CloudEvents' word
        """Write an event that concerns no worker; the relay is woken. Raises NotLeaderError, DatabaseAwayError."""
        text = msgspec.json.encode(data).decode()
        share = self._subjects.share
        ours = None if share is None else share.index
        await self._leader.fetch(self._statements["outbox_add"], type, subject, text, self._observed, ours)

    async def pending(self, behind: int, limit: int) -> list[Pending]:
        """Return up to `limit` events behind the number `behind`, in the order in which they were written."""
        while True:
            rows = await self._database.fetch(self._statements["outbox_pending"], behind, limit)
            ours = [_pending(row) for row in rows if self._is_ours(row)]
            if ours or len(rows) < limit:
                return ours
            behind = rows[-1]["seq"]

    def _is_ours(self, row: asyncpg.Record) -> bool:
        # What concerns no worker says itself whose it is; unless a service of before wrote it: then it is somebody's.
        return (not row["worker"] and row["hashed"]) or self._subjects.owns(row["worker"])

    async def clear(self, seqs: Sequence[int]) -> None:
        """Forget events that the stream has acknowledged. Raises NotLeaderError, DatabaseAwayError."""
        await self._leader.fetch(self._statements["outbox_clear"], list(seqs))

    async def depth(self) -> tuple[int, float]:
        """Return how many events wait, and for how many seconds the oldest has."""
        row = (await self._database.fetch(self._statements["outbox_depth"]))[0]
        return row["events"], row["oldest"] or 0.0

    async def listen(self, on_notice: Callable[[], None]) -> None:
        """Call `on_notice` when events were committed, for ever. Only a hint: the outbox has to be polled as well."""
        await self._database.listen("liveness_outbox", on_notice)


def _pending(row: asyncpg.Record) -> Pending:
    return Pending(**{name: row[name] for name in Pending.__struct_fields__})
