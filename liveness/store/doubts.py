"""What is held against lives that go on: suspected or wedged workers, and registry rows that we set DEGRADED for it."""

from collections.abc import Iterable, Sequence

import msgspec

from liveness.store.database import Database
from liveness.store.epochs import as_json
from liveness.store.leader import Leader
from liveness.store.statements import Statements
from liveness.subjects import Subjects


class Doubt(msgspec.Struct, frozen=True, kw_only=True):
    """A worker that is suspected or wedged (`kind`), to be noted and told. Durations in seconds."""

    worker: str
    epoch: int
    kind: str
    incarnation: str | None = None
    cause: str | None = None
    ttl: float | None = None
    silent_for: float | None = None
    progress: int | None = None
    running: int | None = None
    still_for: float | None = None


class Kept(msgspec.Struct, frozen=True):
    """A doubt as Postgres keeps it, for so many seconds; `over`: all but what is to be set back of it."""

    worker: str
    kind: str
    epoch: int
    progress: int | None
    over: bool
    raised_ago: float


class Doubts:
    """The doubts. What changes anything raises NotLeaderError besides DatabaseAwayError and DatabaseRefusedError."""

    def __init__(
        self, database: Database, leader: Leader, statements: Statements, *, observed: bool, subjects: Subjects
    ) -> None:
        self._database = database
        self._leader = leader
        self._statements = statements
        self._observed = observed
        self._subjects = subjects

    async def kept(self) -> list[Kept]:
        """Return all that are kept of our share. Raises DatabaseAwayError."""
        rows = await self._database.fetch(self._statements["doubts"])
        return [Kept(**dict(row)) for row in rows if self._subjects.owns(row["worker"])]

    async def raise_(self, doubts: Iterable[Doubt]) -> set[tuple[str, str]]:
        """Note and tell doubts, each once for each life; return (worker, kind) of those whose life goes on."""
        rows = await self._leader.fetch(self._statements["raise_doubts"], as_json(doubts), self._observed)
        return {(row["worker"], row["kind"]) for row in rows}

    async def end(self, doubts: Iterable[tuple[str, str, int]]) -> set[tuple[str, str]]:
        """Note that doubts (worker, kind, epoch) are over, and tell it where the life goes on; return those that are.

        The others' lives are just being ended by somebody.
        """
        offered = [{"worker": worker, "kind": kind, "epoch": epoch} for worker, kind, epoch in doubts]
        rows = await self._leader.fetch(self._statements["end_doubts"], as_json(offered), self._observed)
        return {(row["worker"], row["kind"]) for row in rows}

    async def degrade(self, names: Sequence[str]) -> set[str]:
        """Mark the ONLINE rows of suspects; return the names of which the host holds rows. Not in mode observe."""
        registry = self._statements.registry
        if registry.degraded is None:
            return set()
        rows = await self._leader.fetch(self._statements["degrade"], list(names), registry.online, registry.degraded)
        return {row["worker"] for row in rows}

    async def set_online(self, names: Sequence[str]) -> set[str]:
        """Set back what was marked for doubts that are over, and forget those; return the names with some left.

        In mode observe nothing of the host's is touched: what was marked before is left for whoever acts again.
        """
        registry = self._statements.registry
        if registry.degraded is None:
            await self._leader.fetch(self._statements["forget_doubts"], list(names))
            return set()
        rows = await self._leader.fetch(
            self._statements["set_online"], list(names), registry.online, registry.degraded, self._observed
        )
        return {row["worker"] for row in rows}
