"""What the service reads of the host's tables, and the little that it writes there outside a reclaim."""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from liveness.store.database import PATIENCE, Database
from liveness.store.leader import Leader
from liveness.store.statements import Statements
from liveness.subjects import Subjects
from liveness.turns import in_turns
from liveness.work import WorkTable

# A hundred years.
LONGEST_SECONDS = 3e9
# For how long the sweep goes from owner to owner before it goes through the rows behind: some 30,000 owners by an
# index, or about what going through a million rows takes. Where that is too short it is so again, and not tried in the
# next so many sweeps.
WALK_SECONDS, WALK_AGAIN = 0.15, 20


class Found(msgspec.Struct, frozen=True):
    """A name that the sweep found, without regard to what memory knows of it. Durations in seconds.

    `undated`: the kind of its work, if nothing tells how long that was untouched, so that it is nothing to take.
    """

    worker: str
    ttl: float | None
    silent_for: float | None = None
    undated: str | None = None


class Host:
    """The host's registry and work tables."""

    def __init__(
        self, database: Database, leader: Leader, statements: Statements, *, observed: bool, subjects: Subjects
    ) -> None:
        self._database = database
        self._leader = leader
        self._statements = statements
        self._observed = observed
        self._subjects = subjects
        # By kind of work: for how many more sweeps not to walk.
        self._no_walk: Counter[str] = Counter()

    async def stale(self, silent_for: float) -> list[Found]:
        """Return the names that are up and whose last recorded beat is older than `silent_for` seconds."""
        rows = await self._database.fetch(
            self._statements["find_stale"], list(self._statements.registry.up), silent_for, self._observed, patient=True
        )
        return [
            Found(row["worker"], row["ttl"], row["silent_for"])
            async for row in in_turns(rows)
            if self._subjects.owns(row["worker"])
        ]

    async def orphaned(self, untouched_for: float) -> list[Found]:
        """Return owners of RUNNING work, untouched for so many seconds or undated, who are not up."""
        found: dict[str, Found] = {}
        up = list(self._statements.registry.up)
        for work in self._statements.works:
            for names, behind in await self._owners(work, up):
                rows = await self._database.fetch(
                    self._statements.on(work, "find_orphans"),
                    up,
                    untouched_for,
                    work.running,
                    work.work,
                    self._observed,
                    names,
                    behind,
                    *self._statements.given("find_orphans", work),
                    patient=True,
                )
                undated = work.work if work.touched is None else None
                for row in rows:
                    worker = row["worker"]
                    # None: an id that the registry does not know, which counts as ownerless.
                    if worker is None or not self._subjects.owns(worker):
                        continue
                    if undated is None or worker not in found:
                        found[worker] = Found(worker, row["ttl"], undated=undated)
        return list(found.values())

    async def ownerless(self, untouched_for: float) -> Mapping[str, int]:
        """Return, by kind of work, how many RUNNING rows name no owner."""
        return {
            work.work: await self._count(
                self._statements.on(work, "count_ownerless"),
                work.running,
                untouched_for,
                *self._statements.given("count_ownerless", work),
            )
            for work in self._statements.works
        }

    async def ambiguous(self, names: Sequence[str]) -> Mapping[str, str]:
        """Return those of `names` that differ only in case from a name that may live, with that name."""
        if not names:
            return {}
        rows = await self._database.fetch(
            self._statements["ambiguous_names"], list(names), list(self._statements.registry.up), patient=True
        )
        return {row["worker"]: row["other"] for row in rows}

    async def running(self, names: Sequence[str]) -> Mapping[str, int]:
        """Return how many pieces of work each of `names` runs; names that run none are left out."""
        counts: dict[str, int] = {}
        for work in self._statements.works:
            rows = await self._database.fetch(
                self._statements.on(work, "running_counts"),
                list(names),
                work.running,
                *self._statements.given("running_counts", work),
                patient=True,
            )
            for row in rows:
                counts[row["worker"]] = counts.get(row["worker"], 0) + row["items"]
        return counts

    async def holding(self, ages: Mapping[str, tuple[str, float]]) -> Mapping[str, float]:
        """Return those names that own RUNNING work which nobody touched since their incarnation began.

        `ages`: of each name the incarnation, and for how many seconds it is there by what was heard of it. Returned is
        the same as Postgres knows it, which may be longer. As the leader: a former one heard of its arrivals too late
        to tell whose work that is. Raises NotLeaderError, DatabaseAwayError.
        """
        incarnations = [incarnation for incarnation, _ in ages.values()]
        # Beyond what an interval can hold, nothing was ever touched.
        seconds = [min(age, LONGEST_SECONDS) for _, age in ages.values()]
        found: dict[str, float] = {}
        async with self._leader.transaction(patient=True) as connection:
            for work in self._statements.works:
                rows = await connection.fetch(
                    self._statements.on(work, "holding_names"), list(ages), incarnations, seconds,
                    work.running, work.work,
                    *self._statements.given("holding_names", work), timeout=PATIENCE,
                )  # fmt: skip
                found.update((row["worker"], row["age"]) for row in rows)
        return found

    async def checkpoint(self, beats: Mapping[str, float]) -> None:
        """Refresh the registry's last beat of names, given the seconds since each beat, in one statement.

        Raises NotLeaderError, DatabaseAwayError, DatabaseRefusedError.
        """
        await self._leader.fetch(self._statements["checkpoint"], list(beats), list(beats.values()))

    async def register(self, names: Sequence[str]) -> None:
        """Give those of `names` that the registry does not know a row of their own. Raises as `checkpoint` does."""
        registry = self._statements.registry
        online = [] if registry.status is None else [registry.online]
        await self._leader.fetch(self._statements["register"], list(names), *online)

    async def _owners(self, work: WorkTable, up: list[str]) -> list[tuple[list[str] | None, str | None]]:
        """Return whose rows have to be looked at: of some names, of all behind a name, or (None, None) of all."""
        if self._no_walk[work.work] > 0:
            self._no_walk[work.work] -= 1
            return [(None, None)]
        rows = await self._database.fetch(
            self._statements.on(work, "find_owners"),
            up,
            work.running,
            WALK_SECONDS,
            *self._statements.given("find_owners", work),
            patient=True,
        )
        names = [row["worker"] for row in rows if not row["came_to"]]
        looks: list[tuple[list[str] | None, str | None]] = [(names, None)] if names else []
        for row in rows:
            if row["came_to"]:
                self._no_walk[work.work] = WALK_AGAIN
                looks.append((None, row["worker"]))
        return looks

    async def _count(self, statement: str, *parameters: object) -> int:
        rows = await self._database.fetch(statement, *parameters, patient=True)
        return int(rows[0][0])
