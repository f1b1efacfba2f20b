"""Which indexes our statements miss on the host's tables, and what each would gain, measured on the host's own data.

Nothing is made unasked, and nobody is kept from writing. Whether an index serves is asked of the planner and not read
from the catalogue: it knows which predicates imply which, and passes by an index that is not valid. What a statement
takes now is seen by carrying out its reading half on the table itself, in a read-only transaction; what it would take,
on a temporary copy (of the session, dropped with the transaction) of those rows that the index would hold. They lie
closer together there than in the table, so that rows which are on a disk still would take longer the first time.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

import asyncpg
import msgspec
import structlog

from liveness.errors import DatabaseAwayError, DatabaseRefusedError
from liveness.findings import Gain
from liveness.needs import Need, needs
from liveness.parts import some_key
from liveness.settings import Settings
from liveness.store.catalogue import read_catalogue
from liveness.store.database import GRACE_SECONDS, Connection, Database, milliseconds
from liveness.store.host import WALK_SECONDS
from liveness.store.statements import Statements
from liveness.work import WorkTable, quoted

log = structlog.get_logger("liveness.indexes")

# Rows that are copied of one table at most: far below what fills a disk.
COPIED_ROWS: Final = 100_000
# How often a statement is timed, as long as it is quick: the first time may have waited for a disk.
TIMES, QUICK_SECONDS = 3, 0.5
# Where an index leads there by a detour, ours is proposed if it is so much better.
WORTH_SECONDS, WORTH_TIMES = 0.002, 3.0

_ONLY_INDEXES: Final = """
    SELECT set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true),
        set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true),
        set_config('max_parallel_workers_per_gather', '0', true)
"""
_LEAVES: Final = """
    SELECT n.nspname AS space, c.relname AS name
    FROM pg_partition_tree($1::text::regclass) AS t
    JOIN pg_class AS c ON c.oid = t.relid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE t.isleaf AND c.relkind = 'r'
        AND (SELECT p.relkind FROM pg_class AS p WHERE p.oid = $1::text::regclass) = 'p'
    ORDER BY n.nspname, c.relname
"""
# By whatever schema: to be surprised by a name that is elsewhere costs nobody anything.
_OUR_NAMES: Final = r"SELECT relname FROM pg_class WHERE relname LIKE '%\_liveness%'"
_INVALID: Final = """
    SELECT i.indexrelid::regclass::text AS name
    FROM pg_index AS i
    WHERE NOT i.indisvalid
        AND i.indrelid IN (
            SELECT $1::text::regclass UNION SELECT t.relid FROM pg_partition_tree($1::text::regclass) AS t
        )
    ORDER BY 1
"""
_SORTS: Final = {"Sort", "Incremental Sort"}


class Use(msgspec.Struct, frozen=True):
    """When we read what an index is for, and by which statements: name and parameters."""

    when: str
    statements: tuple[tuple[str, tuple[Any, ...]], ...]


class MissingIndex(msgspec.Struct, frozen=True):
    """An index that no other stands in for. `detour`: one leads there, by way of rows that are not looked for."""

    need: Need
    statements: tuple[str, ...]
    gains: tuple[Gain, ...]
    measured: str
    detour: bool
    invalid: tuple[str, ...]


async def missing_indexes(database: Database, settings: Settings, seconds: float) -> list[MissingIndex]:
    """Return what is missing, with the gains. No statement takes more than `seconds`.

    Raises CannotStartError as `read_catalogue` does, DatabaseAwayError, DatabaseRefusedError.
    """
    statements, _ = await read_catalogue(database, settings.postgres_schema, settings.tables)
    measuring = _Measuring(database, settings, statements, seconds)
    found = []
    for need in needs(statements.registry, statements.works):
        served, detour = await measuring.served(need)
        if served and not detour:
            continue
        gains, how = await measuring.gains(need)
        if served and not any(_worth(gain) for gain in gains):
            continue
        found.append(await measuring.proposal(need, gains, how, detour=served))
    return found


async def tell_unserved(database: Database, settings: Settings, statements: Statements) -> None:
    """Log which indexes are not there at all, each with what makes it. Nothing is measured: a start must not take long.

    Raises DatabaseAwayError, DatabaseRefusedError.
    """
    looking = _Measuring(database, settings, statements, 0.0)
    for need in needs(statements.registry, statements.works):
        served, _ = await looking.served(need)
        if not served:
            proposal = await looking.proposal(need, (), "", detour=False)
            log.warning("index_missing", table=need.table, column=need.column, create=list(proposal.statements))


def _worth(gain: Gain) -> bool:
    return gain.then is not None and gain.now - gain.then > WORTH_SECONDS and gain.now > WORTH_TIMES * gain.then


class _Measuring:
    def __init__(self, database: Database, settings: Settings, statements: Statements, seconds: float) -> None:
        self._database = database
        self._schema = settings.postgres_schema
        self._stuck_timeout = settings.workflow_stuck_timeout
        self._statements = statements
        self._seconds = seconds
        self._works: Mapping[str | None, WorkTable] = {work.work: work for work in statements.works}

    async def served(self, need: Need) -> tuple[bool, bool]:
        """Return whether an index leads to what is looked for, and whether by a detour: reading other rows, or all."""
        work = self._works.get(need.work)
        if work is None:
            registry = self._statements.registry
            statement, parameters = self._statements["check_name_index"], [some_key(registry.name_type)]
        else:
            statement = self._statements.on(work, "check_owner_index")
            parameters = [work.running, *self._statements.given("check_owner_index", work)]
        async with self._database.transaction() as connection:
            await connection.execute("SET TRANSACTION READ ONLY")
            await connection.execute(_ONLY_INDEXES)
            plan = json.loads(await connection.fetchval(f"EXPLAIN (FORMAT JSON) {statement}", *parameters))
        nodes = _nodes(plan[0]["Plan"])
        return (
            all(node["Node Type"] != "Seq Scan" for node in nodes),
            any("Filter" in node or node["Node Type"] in _SORTS for node in nodes),
        )

    async def proposal(self, need: Need, gains: Sequence[Gain], how: str, *, detour: bool) -> MissingIndex:
        """Return what would make the index, fitted to the table as it is."""
        schema = need.schema or self._schema
        table = f"{quoted(schema)}.{quoted(need.table)}"
        leaves = [(row["space"], row["name"]) for row in await self._database.fetch(_LEAVES, table)]
        taken = [row["relname"] for row in await self._database.fetch(_OUR_NAMES)]
        invalid = tuple(row["name"] for row in await self._database.fetch(_INVALID, table))
        return MissingIndex(need, tuple(need.statements(schema, leaves, taken)), tuple(gains), how, detour, invalid)

    async def gains(self, need: Need) -> tuple[list[Gain], str]:
        """Return what each use takes now, and would take, and how that was found."""
        uses = await self._uses(need)
        now = [await self._now(need, use) for use in uses]
        gains = [
            Gain(use=use.when, now=self._seconds if taken is None else taken, at_least=taken is None)
            for use, taken in zip(uses, now, strict=True)
        ]
        if None in now:
            # To find the rows to copy would be broken off, too.
            return gains, f"broken off after {self._seconds:g} s, so the gain was not measured: give --seconds more"
        try:
            then, rows = await self._then(need, uses)
        except (DatabaseAwayError, DatabaseRefusedError) as error:
            return gains, f"without the index only: no temporary copy could be made to try it on ({error})"
        return (
            [msgspec.structs.replace(gain, then=taken) for gain, taken in zip(gains, then, strict=True)],
            f"now: on the table, read-only; then: with this index on a temporary copy of {self._copied(need, rows)}",
        )

    def _copied(self, need: Need, rows: int) -> str:
        kind = "" if need.where is None else f"{need.where[1]} "
        return f"its {'first ' if rows == COPIED_ROWS else ''}{rows:,} {kind}rows"

    async def _uses(self, need: Need) -> list[Use]:
        up = list(self._statements.registry.up)
        work = self._works.get(need.work)
        if work is None:
            some = some_key(self._statements.registry.name_type)
            return [Use("finding a worker by its name, at each reclaim", (("check_named", ([some], up)),))]

        def with_given(name: str, *parameters: Any) -> tuple[str, tuple[Any, ...]]:
            return name, (*parameters, *self._statements.given(name, work))

        return [
            Use(
                "finding one worker's rows, at each reclaim",
                (with_given("running_counts", [await self._some_owner(work)], work.running),),
            ),
            Use(
                "going through the owners, at each sweep",
                (
                    with_given("count_ownerless", work.running, self._stuck_timeout),
                    # It gives up after a while, and so takes no longer than that, whatever it leaves undone.
                    with_given("find_owners", up, work.running, WALK_SECONDS),
                ),
            ),
        ]

    async def _some_owner(self, work: WorkTable) -> str:
        try:
            async with self._reading() as connection:
                statement = self._statements.on(work, "check_owner_index")
                given = self._statements.given("check_owner_index", work)
                owner = await connection.fetchval(statement, work.running, *given, timeout=self._patience)
        except DatabaseAwayError:
            owner = None
        return some_key(work.owner_type) if owner is None else str(owner)

    async def _now(self, need: Need, use: Use) -> float | None:
        """Return seconds, or None if a statement was broken off."""
        taken = 0.0
        for name, parameters in use.statements:
            try:
                async with self._reading() as connection:
                    taken += await self._timed(connection, self._text(self._statements, need, name), parameters)
            except DatabaseAwayError as error:
                if isinstance(error.__cause__, asyncpg.QueryCanceledError | TimeoutError):
                    return None
                raise
        return taken

    async def _then(self, need: Need, uses: Sequence[Use]) -> tuple[list[float], int]:
        """Return seconds of each use on a copy with the index, and how many rows that has."""
        copies = Statements(
            "pg_temp",
            msgspec.structs.replace(self._statements.registry, schema=None),
            [msgspec.structs.replace(work, schema=None) for work in self._statements.works],
        )
        async with self._database.transaction() as connection:
            await self._limit(connection)
            await self._copy_registry(connection)
            if (work := self._works.get(need.work)) is not None:
                columns = [*work.required, *(where.column for where in work.where)]
                await self._copy(connection, need.schema, work.table, columns, need.predicate)
            copy = f"pg_temp.{quoted(need.table)}"
            await connection.execute(f"CREATE INDEX ON {copy} ({quoted(need.column)}){need.predicate}")
            await connection.execute(f"ANALYZE {copy}")
            rows = int(await connection.fetchval(f"SELECT count(*) FROM {copy}"))  # noqa: S608 - quoted identifiers
            taken = []
            for use in uses:
                texts = [(self._text(copies, need, name), parameters) for name, parameters in use.statements]
                taken.append(sum([await self._timed(connection, text, parameters) for text, parameters in texts]))
        return taken, rows

    async def _copy_registry(self, connection: Connection) -> None:
        registry = self._statements.registry
        await self._copy(connection, registry.schema, registry.table, registry.required, "")

    async def _copy(
        self, connection: Connection, schema: str | None, table: str, columns: Sequence[str], where: str
    ) -> None:
        await connection.execute(
            f"CREATE TEMP TABLE {quoted(table)} ON COMMIT DROP AS"  # noqa: S608 - quoted identifiers and literals
            f" SELECT {', '.join(quoted(column) for column in dict.fromkeys(columns))}"
            f" FROM {quoted(schema or self._schema)}.{quoted(table)}{where} LIMIT {COPIED_ROWS}",
            timeout=self._patience,
        )

    def _text(self, statements: Statements, need: Need, name: str) -> str:
        work = self._works.get(need.work)
        return statements[name] if work is None else statements.on(work, name)

    async def _timed(self, connection: Connection, statement: str, parameters: Sequence[Any]) -> float:
        best = float("inf")
        for _ in range(TIMES):
            explained = await connection.fetchval(
                f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}", *parameters, timeout=self._patience
            )
            best = min(best, json.loads(explained)[0]["Execution Time"] / 1000)
            if best > QUICK_SECONDS:
                break
        return best

    @property
    def _patience(self) -> float:
        return self._seconds + GRACE_SECONDS

    async def _limit(self, connection: Connection) -> None:
        await connection.execute("SELECT set_config('statement_timeout', $1, true)", milliseconds(self._seconds))

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[Connection]:
        """A transaction in which nothing can be written, and no statement takes longer than it may."""
        async with self._database.transaction() as connection:
            await connection.execute("SET TRANSACTION READ ONLY")
            await self._limit(connection)
            yield connection


def _nodes(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [plan, *(node for below in plan.get("Plans", []) for node in _nodes(below))]
