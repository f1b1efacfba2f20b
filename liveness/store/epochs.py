"""Epochs as Postgres issues and keeps them."""

from collections.abc import Iterable, Mapping, Sequence

import asyncpg
import msgspec
import structlog

from liveness.apart import apart
from liveness.store.database import PATIENCE, Database
from liveness.store.leader import Leader
from liveness.store.statements import Statements
from liveness.subjects import Subjects
from liveness.turns import in_turns
from liveness.verdicts import Recovery

log = structlog.get_logger("liveness.epochs")


class Life(msgspec.Struct, frozen=True):
    """A life of a worker name: what a lease is restored from, and what is kept current of it."""

    worker: str
    epoch: int | None
    incarnation: str | None
    ttl: float | None
    # How old (seconds) that incarnation was at the newest hello that was heard of it, where it stated that.
    hello_uptime: float | None = None


class Granted(msgspec.Struct, frozen=True):
    """What became of lives that wanted an epoch: their epochs by name, or the lives of others that have the name.

    `others` are open epochs of another incarnation: two processes under one name, of which the caller did not know.
    """

    epochs: Mapping[str, int]
    others: list[Life]


class Ended(msgspec.Struct, frozen=True):
    """An epoch that is over, and for how many seconds; and whether a new process was the reason, and whose it was."""

    epoch: int
    ago: float
    restarted: bool = False
    incarnation: str | None = None


class Former(msgspec.Struct, frozen=True):
    """An incarnation of a name that a restart ended, and the epoch that was its."""

    worker: str
    incarnation: str
    epoch: int


def as_json(rows: Iterable[object]) -> str:
    """Return `rows` as the JSON text that the statements take: one parameter however many fields and rows."""
    return msgspec.json.encode(list(rows)).decode()


class Epochs:
    """Grants, what is kept of open lives, and recoveries.

    What changes anything raises NotLeaderError besides DatabaseAwayError and DatabaseRefusedError.
    """

    def __init__(self, database: Database, leader: Leader, statements: Statements, subjects: Subjects) -> None:
        self._database = database
        self._leader = leader
        self._statements = statements
        self._subjects = subjects

    async def grant(self, lives: Iterable[Life]) -> Granted:
        """Issue epochs. Granting the same life again returns the same epoch; that of another is left to it."""
        wanting = list(lives)
        async with self._leader.transaction() as connection:
            rows = await connection.fetch(self._statements["grant_epochs"], as_json(map(self._hashed, wanting)))
            epochs = {row["worker"]: row["epoch"] for row in rows}
            others = [life.worker for life in wanting if life.worker not in epochs]
            # The same transaction, whose grant has their rows locked: what is read is what stood in the way.
            found = await connection.fetch(self._statements["restore_epochs"], others) if others else []
        return Granted(epochs, [_life(row) for row in found])

    async def known(self, names: list[str]) -> set[str]:
        """Return those of `names` that the host's registry has, or that hold RUNNING work."""
        running = [work.running for work in self._statements.works]
        given = self._statements.given("known_names")
        rows = await self._database.fetch(self._statements["known_names"], names, *running, *given, patient=True)
        return {row["worker"] for row in rows}

    async def expected(self) -> list[str]:
        """Return the names of ours that may live and have no open epoch: up, or holding work."""
        registry = self._statements.registry
        running = [work.running for work in self._statements.works] + [*self._statements.given("restore_names")]
        rows = await self._database.fetch(self._statements["restore_names"], list(registry.up), *running, patient=True)
        return [row["worker"] async for row in in_turns(rows) if self._subjects.owns(row["worker"])]

    async def update(self, lives: Iterable[Life]) -> None:
        """Keep the ttl, the incarnation and the newest hello of open lives."""
        await self._leader.fetch(self._statements["update_lives"], as_json(lives))

    async def recover(self, heard: Mapping[str, int]) -> list[Recovery]:
        """Note that names with an ended epoch were heard again, under the epochs given.

        Returns a recovery for each name of which that is news, once; `worker.recovered` is written for all but those
        that were released or restarted.
        """
        lives = [{"worker": worker, "epoch": epoch} for worker, epoch in heard.items()]
        rows = await self._leader.fetch(self._statements["recover"], as_json(lives))
        return [_recovery(row) for row in rows]

    async def set_back(self) -> None:
        """Set registry rows of recovered names back that WE had set OFFLINE, as far as nobody locks them.

        A row that the registry refuses to take back is given up, and logged: it must not hold up the others, or us.
        """
        if self._statements.registry.status is None:
            return
        rows = await self._database.fetch(self._statements["owing_names"])
        names = [row["worker"] for row in rows if self._subjects.owns(row["worker"])]
        for name, error in await apart(names, self._set_back) if names else []:
            log.error("set_back_refused", worker=name, cause=str(error))
            await self._leader.fetch(self._statements["forget_offlined"], name)

    async def _set_back(self, names: Sequence[str]) -> None:
        await self._leader.fetch(self._statements["set_back"], self._statements.registry.offline, list(names))

    async def open_lives(self, names: list[str] | None) -> list[Life]:
        """Return the lives of `names` that have not ended; of all our names for None."""
        rows = await self._database.fetch(self._statements["restore_epochs"], names, patient=True)
        return await self._ours(rows)

    async def ended_ago(self, names: Sequence[str]) -> Mapping[str, Ended]:
        """Return when the last life of each name ended, of those that had one and have none now."""
        rows = await self._database.fetch(self._statements["ended_ago"], list(names))
        return {row["worker"]: Ended(row["epoch"], row["ago"], row["restarted"], row["incarnation"]) for row in rows}

    async def formers(self, names: list[str] | None) -> list[Former]:
        """Return the incarnations that a restart ended within a day, of those of `names` (None: all) that live.

        The newest 8 of each name, oldest first.
        """
        rows = await self._database.fetch(self._statements["former_incarnations"], names, patient=True)
        return [
            Former(row["worker"], row["incarnation"], row["epoch"])
            for row in rows
            if self._subjects.owns(row["worker"])
        ]

    async def restorable(self) -> tuple[list[Life], list[Life]]:
        """Return the open lives, and the names without one that may live all the same (up, or holding work).

        The ttl of the latter is that of their last life, None if we knew none.
        """
        registry = self._statements.registry
        running = [work.running for work in self._statements.works] + [*self._statements.given("restore_names")]
        async with self._database.transaction(patient=True) as connection:
            open_lives = await connection.fetch(self._statements["restore_epochs"], None, timeout=PATIENCE)
            names = await connection.fetch(
                self._statements["restore_names"], list(registry.up), *running, timeout=PATIENCE
            )
        return (
            await self._ours(open_lives),
            [Life(row["worker"], None, None, row["ttl"]) for row in names],
        )

    async def _ours(self, rows: Sequence[asyncpg.Record]) -> list[Life]:
        if self._subjects.share is None:
            return [_life(row) for row in rows]
        # Postgres has left out nearly all others, by their hashes. Those that it cannot tell are told by their names.
        return [_life(row) async for row in in_turns(rows) if self._subjects.owns(row["worker"])]

    def _hashed(self, life: Life) -> dict[str, object]:
        return msgspec.structs.asdict(life) | {"hash": self._subjects.kept_hash_of(life.worker)}


def _life(row: asyncpg.Record) -> Life:
    return Life(row["worker"], row["epoch"], row["incarnation"], row["ttl"], row["hello_uptime"])


def _recovery(row: asyncpg.Record) -> Recovery:
    return Recovery(row["worker"], row["epoch"], row["incarnation"], row["reason"], row["new_epoch"], row["observed"])
