"""Events that are committed and not yet known to be published."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import asyncpg
import msgspec

from liveness.eventdata import sound_traceparent
from liveness.store.database import Database
from liveness.store.leader import Leader
from liveness.store.statements import Statements
from liveness.subjects import Subjects

# An item of a parcel: id of the work, kind, queue, reclaim_count.
_ITEMS: Final = msgspec.json.Decoder(list[tuple[str, str | None, str | None, int]])
# Of the text of a UUID, all but its last group.
_BEGIN: Final = 24


class Pending(msgspec.Struct, frozen=True):
    """One event of the outbox. `transaction_id` is that of the transaction that committed it; `data` is JSON.

    `seq` is its row's, which it may share with other events.
    """

    seq: int
    id: str
    type: str
    subject: str
    worker: str
    observed: bool
    transaction_id: int
    time: str
    data: str
    # Of the span in which it was written (W3C); None: nobody collected it.
    traceparent: str | None = None


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
        ours = None if share is None else self._subjects.mark << 32 | share.index
        await self._leader.fetch(self._statements["outbox_add"], type, subject, text, self._observed, ours)

    async def pending(self, behind: int, limit: int) -> list[Pending]:
        """Return events behind the number `behind`, in the order in which they were written.

        Those of a row come all together, so there may be more than `limit`: by what one transaction wrote at most.
        """
        while True:
            rows = await self._database.fetch(self._statements["outbox_pending"], behind, limit)
            ours = [event for row in rows if self._is_ours(row) for event in unpacked(dict(row))]
            if ours or not rows:
                return ours
            behind = rows[-1]["seq"]

    def _is_ours(self, row: asyncpg.Record) -> bool:
        # What concerns no worker says itself whose it is; unless a service of before wrote it: then it is somebody's.
        return (not row["worker"] and row["hashed"]) or self._subjects.owns(row["worker"])

    async def clear(self, seqs: Sequence[int]) -> None:
        """Forget rows all of whose events the stream has acknowledged. Raises NotLeaderError, DatabaseAwayError."""
        await self._leader.fetch(self._statements["outbox_clear"], list(seqs))

    async def depth(self) -> tuple[int, float]:
        """Return how many events wait, and for how many seconds the oldest has."""
        row = (await self._database.fetch(self._statements["outbox_depth"]))[0]
        return row["events"], row["oldest"] or 0.0

    async def listen(self, on_notice: Callable[[], None]) -> None:
        """Call `on_notice` when events were committed, for ever. Only a hint: the outbox has to be polled as well."""
        await self._database.listen("liveness_outbox", on_notice)


def unpacked(row: Mapping[str, Any]) -> list[Pending]:
    """Return the events of one row of the outbox. Always the same, and in the same order."""
    common = {key: row[key] for key in ("seq", "type", "worker", "observed", "transaction_id", "time")}
    common["traceparent"] = sound_traceparent(row["traceparent"])
    if row["items"] is None:
        return [Pending(**common, id=row["id"], subject=row["subject"], data=row["told"])]
    key, told = _text(row["subject"]), row["told"].strip()[1:-1]
    # Random enough without its last part: 74 bits for each row.
    begin = row["id"][:_BEGIN]
    return [
        Pending(
            **common,
            id=f"{begin}{place:012x}",
            subject=work,
            data=f'{{{key}:{_text(work)},"kind":{_text(kind)},"queue":{_text(queue)},{told},"reclaim_count":{count}}}',
        )
        for place, (work, kind, queue, count) in enumerate(_ITEMS.decode(row["items"]))
    ]


def _text(text: str | None) -> str:
    return msgspec.json.encode(text).decode()
