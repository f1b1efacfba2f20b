"""What is old enough to be forgotten: the history, what leaked, and lives that ended.

Which of it is still owed to somebody, and stays, is in the statements, and in docs/retention.md.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeAlias

import asyncpg

from liveness.store.database import Connection
from liveness.store.epochs import as_json
from liveness.store.leader import Leader
from liveness.store.statements import Statements

# Behind which life to go on: when it ended, and whose it was.
Behind: TypeAlias = tuple[datetime, str, int]
BEGINNING: Behind = (datetime.min.replace(tzinfo=UTC), "", 0)


class Aged:
    """Forgets. `retention`: seconds that everything is kept; `batch`: rows that one transaction looks at.

    Raises NotLeaderError, DatabaseAwayError, DatabaseRefusedError.
    """

    def __init__(self, leader: Leader, statements: Statements, *, retention: float, batch: int) -> None:
        self.batch = batch
        self._leader = leader
        self._statements = statements
        self._retention = retention

    async def forget_reclaims(self) -> int:
        """Forget the oldest rows of the history; return how many."""
        return await self._forget("forget_reclaims")

    async def forget_leaks(self) -> int:
        """Forget the oldest records of rows that leaked; return how many."""
        return await self._forget("forget_leaks")

    async def forget_lives(self, behind: Behind) -> tuple[int, Behind | None]:
        """Look at the next lives that ended long ago, and forget those that nobody is owed anything of.

        Return how many those were, and behind which life to go on; None when there are no more.
        """
        async with self._leader.transaction(patient=True) as connection:
            looked_at = await connection.fetch(self._statements["aged_lives"], self._retention, self.batch, *behind)
            owing = await self._owing(connection, looked_at)
            owed = {(row["worker"], row["epoch"]) for row in owing}
            lives = [life for life in map(_life, looked_at) if (life["worker"], life["epoch"]) not in owed]
            gone = await connection.fetchval(self._statements["forget_lives"], as_json(lives), self._retention)
        last = looked_at[-1] if len(looked_at) == self.batch else None
        return gone, None if last is None else (last["expired_at"], last["worker"], last["epoch"])

    async def _owing(self, connection: Connection, looked_at: Sequence[asyncpg.Record]) -> Sequence[asyncpg.Record]:
        """Return the lives that the registry still rests on."""
        registry = self._statements.registry
        if registry.status is None:
            return await connection.fetch(self._statements["owed_unmarked"], as_json([*map(_life, looked_at)]))
        offlined = [_life(row) for row in looked_at if row["offlined"]]
        if not offlined:
            return ()
        return await connection.fetch(self._statements["owed_offlined"], as_json(offlined), registry.offline)

    async def _forget(self, name: str) -> int:
        (row,) = await self._leader.fetch(self._statements[name], self._retention, self.batch)
        return int(row["rows"])


def _life(row: asyncpg.Record) -> dict[str, str | int]:
    return {"worker": row["worker"], "epoch": row["epoch"]}
