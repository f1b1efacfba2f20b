"""liveness.store.Outbox on the model of Postgres."""

from collections.abc import Mapping, Sequence
from typing import Any

from liveness.store import Pending
from tests.simulation.parts import Parts


class Outbox(Parts):
    """The outbox."""

    async def add(self, kind: str, subject: str, _data: Mapping[str, Any]) -> None:
        """See outbox_add.sql."""
        await self.act(lambda _: self.postgres.tell(kind, subject, "", 0))

    async def pending(self, behind: int, limit: int) -> list[Pending]:
        """See outbox_pending.sql."""

        def body(_now: float) -> list[Pending]:
            return [
                Pending(number, str(number), kind, subject, worker, False, transaction, "", "{}")  # noqa: FBT003
                for number, (kind, subject, worker, transaction) in self.postgres.outbox.items()
                if number > behind
            ][:limit]

        return await self.read(body)  # type: ignore[no-any-return]

    async def clear(self, seqs: Sequence[int]) -> None:
        """See outbox_clear.sql."""

        def body(_now: float) -> None:
            for number in seqs:
                self.postgres.outbox.pop(number, None)

        await self.act(body)
