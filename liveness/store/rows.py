"""One row at a time, where a table refuses some: those are left and told, and all others of the life go back.

A transaction that a constraint or a trigger refuses is refused whole, whoever's row it was. So it is tried again in
parts, each within a savepoint, that are halved until the guilty row stands alone. How long that takes is bounded for
each transaction: what was found stays found, and the next one goes on behind it.
"""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from liveness.errors import ContestedError, DatabaseRefusedError
from liveness.store.database import PATIENCE, Connection, Database, answers, contested
from liveness.store.statements import Statements, statement_text
from liveness.work import CrashPolicy, WorkTable

# Tries in one transaction: fewer than the 64 subtransactions beyond which every snapshot of the host's has to look them
# up elsewhere. And for how long it begins new ones (seconds): it holds the rows that it has put back.
TRIES, TRY_SECONDS = 48, 0.3
# What a row waits that was refused (seconds), the first time and at most: it has to be mended by somebody first.
RETRY_LEAST, RETRY_MOST = 10.0, 600.0
# Characters of the cause that are kept: a trigger of the host's may say a lot.
CAUSE_LENGTH = 500


class Place(msgspec.Struct, frozen=True):
    """Behind which row of what is left to go on; `id` empty: before all of that epoch."""

    worker: str
    epoch: int
    id: str


class Left(msgspec.Struct, frozen=True):
    """A row that an ended life has left."""

    work: str
    worker: str
    epoch: int
    id: str


class Walk(msgspec.Struct):
    """How far a pass over one name's rows has come, by kind of work; `size`: how many rows the next try takes.

    `refused`: what was found since that was asked last, with the cause; `unmarked`: why the registry refuses to mark
    the worker, if it does; `reasons`: what went back since that was asked last, by work and reason.
    """

    behind: dict[str, Place] = {}
    size: dict[str, int] = {}
    done: set[str] = set()
    items: int = 0
    refused: list[tuple[Left, str]] = []
    unmarked: str | None = None
    reasons: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)


class Rows:
    """Puts back what one life has left, in parts. `chunk`: rows that one part has at most; `clock` is monotonic."""

    def __init__(self, statements: Statements, chunk: int, policy: CrashPolicy, clock: Callable[[], float]) -> None:
        self._statements = statements
        self._chunk = chunk
        self._policy = policy
        self._clock = clock

    async def put_back(
        self, connection: Connection, worker: str, held: Sequence[dict[str, object]], walk: Walk
    ) -> None:
        """Put back rows of `worker` as far as tables take them, and advance `walk`; `held`: its ended lives."""
        tries, until = TRIES, self._clock() + TRY_SECONDS
        for work in self._statements.works:
            while work.work not in walk.done:
                # Who waited for a lock of the host's does not wait for another one with its rows in hand.
                contested = await self._try(connection, work, worker, held, walk)
                tries -= 1
                if contested or not tries or self._clock() >= until:
                    return

    async def retry(self, connection: Connection, due: Sequence[Left], reasons: Counter[tuple[str, str]]) -> int:
        """Try rows again that were refused, as many as there is time for; return how many are not left any more.

        `reasons` is added what went back, by work and reason.
        """
        gone, until = 0, self._clock() + TRY_SECONDS
        for left in due[:TRIES]:
            gone += await self._retry(connection, left, reasons)
            if self._clock() >= until:
                break
        return gone

    async def _retry(self, connection: Connection, left: Left, reasons: Counter[tuple[str, str]]) -> bool:
        work = next(work for work in self._statements.works if work.work == left.work)
        cause = None
        try:
            async with savepoint(connection):
                row = await self._next(connection, work, "reclaim_refused", [_life(left)], 1, left)
                reasons.update(reasons_in(row, work))
        except ContestedError:
            pass
        except DatabaseRefusedError as error:
            cause = str(error)
        return not await self._refuse(connection, left, cause)

    async def _try(
        self, connection: Connection, work: WorkTable, worker: str, held: Sequence[dict[str, object]], walk: Walk
    ) -> bool:
        """Try the next part; say whether somebody held what it needed."""
        behind = walk.behind.get(work.work, Place(worker, 0, ""))
        size = walk.size.get(work.work, self._chunk)
        contested = False
        try:
            async with savepoint(connection):
                row = await self._next(connection, work, "reclaim_next", held, size, behind)
        except DatabaseRefusedError as error:
            contested = isinstance(error, ContestedError)
            walk.size[work.work] = max(size // 4, 1)
            if size > 1:
                return contested
            if not contested:
                # What is wrong with the statement itself is wrong without a row, and then none is to blame.
                async with savepoint(connection):
                    await self._next(connection, work, "reclaim_next", held, 0, behind)
            # It stands alone. What is only held is left to the next pass.
            row = await connection.fetchrow(self._statements["next_row"], work.work, *_place(behind))
            if row is not None and not contested:
                guilty = Left(work.work, row["worker"], row["epoch"], row["id"])
                await self._refuse(connection, guilty, str(error))
                walk.refused.append((guilty, str(error)))
        else:
            walk.size[work.work] = min(2 * size, self._chunk)
            walk.items += 0 if row is None else row["items"]
            walk.reasons.update(reasons_in(row, work))
        if row is None or row["worker"] != worker:
            # All lives of the name were passed.
            walk.done.add(work.work)
        else:
            walk.behind[work.work] = Place(row["worker"], row["epoch"], row["id"])
        return contested

    async def _next(
        self,
        connection: Connection,
        work: WorkTable,
        name: str,
        held: Sequence[dict[str, object]],
        size: int,
        place: Place | Left,
    ) -> asyncpg.Record | None:
        row: asyncpg.Record | None = await connection.fetchrow(
            self._statements.on(work, name),
            msgspec.json.encode(held).decode(),
            work.running,
            work.waiting,
            size,
            work.work,
            f"{work.work}_id",
            False,  # noqa: FBT003 - a parameter of the statement
            self._policy.window,
            work.failed,
            *_place(place),
            *self._statements.given(name, work),
            timeout=PATIENCE,
        )
        # What the host checks at the end only is checked here, where it can be told whose row it is.
        await connection.execute("SET CONSTRAINTS ALL IMMEDIATE", timeout=PATIENCE)
        return row

    async def _refuse(self, connection: Connection, left: Left, cause: str | None) -> bool:
        row = await connection.fetchrow(
            self._statements["refuse_row"],
            left.work, left.worker, left.epoch, left.id,
            None if cause is None else cause[:CAUSE_LENGTH], RETRY_LEAST, RETRY_MOST,
        )  # fmt: skip
        return row is not None


async def refused_rows(database: Database, limit: int) -> tuple[list[tuple[Left, str]], int]:
    """Return rows that their tables refuse to put back, each with the cause, and how many there are in all."""
    rows = await database.fetch(statement_text("refused_rows"), limit)
    return (
        [(Left(row["work"], row["worker"], row["epoch"], row["id"]), row["refused"]) for row in rows],
        rows[0]["of_all"] if rows else 0,
    )


def reasons_in(row: asyncpg.Record | None, work: WorkTable) -> Mapping[tuple[str, str], int]:
    """Return how many rows of `work` went back by `reclaim_next`, by work and reason."""
    reasons = msgspec.json.decode((row and row["reasons"]) or "{}", type=dict[str, int])
    return {(work.work, reason): items for reason, items in reasons.items()}


def _life(left: Left) -> dict[str, Any]:
    return {"worker": left.worker, "epoch": left.epoch}


def _place(place: Place | Left) -> tuple[str, int, str]:
    return place.worker, place.epoch, place.id


@contextlib.asynccontextmanager
async def savepoint(connection: Connection) -> AsyncIterator[None]:
    """Undo what is done within, and nothing else, if Postgres refuses it."""
    await connection.execute("SAVEPOINT part")
    try:
        with answers(), contested():
            yield
    except DatabaseRefusedError:
        await connection.execute("ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part")
        raise
    await connection.execute("RELEASE SAVEPOINT part")
