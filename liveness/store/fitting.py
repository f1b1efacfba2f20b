"""Whether the host's tables can do what the settings want of them, as far as that can be told before the first reclaim.

Every complaint is one line that names the setting, its value and the fix. Tables that are built in and not described by
settings are looked at only for what would keep every reclaim from its work.
"""

import difflib
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Final

import msgspec
import structlog

from liveness.errors import CannotStartError, DatabaseRefusedError
from liveness.rights import Rights, of_registry, of_work
from liveness.settings import Settings
from liveness.store.catalogue import Table, complaint, read_catalogue
from liveness.store.database import Database
from liveness.store.privileges import allowed
from liveness.store.statements import Statements, statement_text
from liveness.work import TEXTS, Column, Registry, WorkTable, quoted

log = structlog.get_logger("liveness.fitting")

_NUMBERS: Final = frozenset({"smallint", "integer", "bigint", "numeric", "real", "double precision"})
_WHOLE: Final = frozenset({"smallint", "integer", "bigint"})
_TIMES: Final = frozenset({"timestamp with time zone", "timestamp without time zone", "date"})
_COUNTS: Final = frozenset({"attempts", "max_attempts", "max_retries"})
# Statements on one table of work; what they read and write covers all that the others do.
_ON_WORK: Final = (
    "reclaim_first",
    "reclaim_next",
    "find_suspects",
    "quarantine",
    "find_orphans",
    "find_owners",
    "count_ownerless",
    "holding_names",
)

Described = WorkTable | Registry


async def check_fit(
    database: Database, settings: Settings, statements: Statements, found: Mapping[str, Table], *, rights: bool = True
) -> None:
    """Raise CannotStartError for the first thing that does not fit; log what is only doubtful.

    Without `rights`, who looks may be somebody who may only read.
    """
    fit = _Fit(database, settings)
    if rights:
        await fit.rights(statements, found)
    registry = statements.registry
    await fit.registry(registry, found[""])
    for work in statements.works:
        await fit.work(work, found[work.work], registry, found[""])
    for work, observed in product(statements.works, (False, True)):
        if work.setting:
            for name in _ON_WORK:
                await fit.statement(work, name, statements.on(work, name, observed=observed))


async def hidden_tables(database: Database, settings: Settings) -> list[tuple[str, str]]:
    """Return the tables of which row security may hide rows, each with our role. Raises as `check_fit` does."""
    statements, found = await read_catalogue(database, settings.postgres_schema, settings.tables)
    await check_fit(database, msgspec.structs.replace(settings, mode="observe"), statements, found, rights=False)
    role: str = (await database.fetch("SELECT current_user::text AS role"))[0]["role"]
    return [(table.called, role) for table in found.values() if table.hidden]


class _Fit:
    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._acts = settings.mode == "act"

    async def rights(self, statements: Statements, found: Mapping[str, Table]) -> None:
        """Check that our role may do with the tables what it has to."""
        registry = statements.registry
        needed: list[tuple[Described, Table, Rights]] = [(registry, found[""], of_registry(registry, self._settings))]
        needed += [(work, found[work.work], of_work(work, self._settings)) for work in statements.works]
        for described, table, rights in needed:
            has = await allowed(self._database, table)
            if (said := has.refused(rights)) is not None:
                field, value = ("table", table.name) if has.uses else ("schema", table.space)
                raise CannotStartError(f"{complaint(described, field, value)}{said}")

    async def registry(self, registry: Registry, table: Table) -> None:
        """Check the table of workers."""
        settings = self._settings
        if self._acts and settings.registers:
            _check_registers(registry, table)
        _doubt_hidden(table)
        if self._acts and settings.mark_suspects and registry.status is not None and registry.degraded is not None:
            named = msgspec.structs.replace(registry, setting=registry.setting or "registry")
            await self._value(named, "degraded", registry.degraded, table, registry.status)
        if not registry.setting:
            return
        _check_told_apart(registry, table)
        written = (("heartbeat", registry.heartbeat), ("status", registry.status))
        for field, column in written:
            if column is not None and table.columns[column].generated:
                raise _wrong(registry, field, column, f"{table.called}.{column} is generated, so nobody can write it")
        if registry.status is not None:
            for field in ("online", "offline"):
                await self._value(registry, field, getattr(registry, field), table, registry.status)

    async def work(self, work: WorkTable, table: Table, registry: Registry, workers: Table) -> None:
        """Check a table of work."""
        _doubt_hidden(table)
        if not work.setting:
            if not table.told_apart:
                log.warning("rows_not_told_apart", table=table.called, doubt=f"no unique index on {work.id}")
            return
        _check_told_apart(work, table)
        _check_owner(work, table)
        _check_changes(work, table)
        await self._owners(work, table, registry, workers)
        await self._value(work, "running", work.running, table, work.status)
        await self._value(work, "waiting", work.waiting, table, work.status)
        if work.failed is not None:
            await self._value(work, "failed", work.failed, table, work.status)
        if work.free_owner is not None:
            await self._value(work, "free_owner", work.free_owner, table, work.owner)
        for where in work.where:
            for value in where.values:
                await self._value(work, f"where.{where.column}", value, table, where.column)

    async def statement(self, work: WorkTable, name: str, text: str) -> None:
        """Let Postgres read a statement: what no check before has thought of."""
        try:
            async with self._database.transaction() as connection:
                await connection.prepare(text)
        except DatabaseRefusedError as error:
            raise CannotStartError(
                f"{work.setting}.table = {work.table!r}: Postgres does not take the statement {name} on it: {error}"
            ) from error

    async def _owners(self, work: WorkTable, table: Table, registry: Registry, workers: Table) -> None:
        owner, name = table.columns[work.owner], workers.columns[registry.name]
        if work.owner_is == "registry_id":
            key = workers.columns[registry.id]
            if _differ(owner, key):
                raise _wrong(
                    work,
                    "owner",
                    work.owner,
                    f"it is of type {owner.type} and {workers.called}.{registry.id} of type {key.type}: it cannot hold "
                    "that; name another column, or set owner_is = 'name'",
                )
            return
        refers = await self._database.fetch(
            statement_text("catalogue_refers"),
            table.space, table.name, work.owner, workers.space, workers.name, registry.id,
        )  # fmt: skip
        if refers[0]["refers"] and registry.id != registry.name:
            raise _wrong(
                work,
                "owner_is",
                work.owner_is,
                f"{table.called}.{work.owner} refers to {workers.called}.{registry.id}, which is no name: set "
                "owner_is = 'registry_id'",
            )
        if owner.base not in TEXTS and name.base not in TEXTS and _differ(owner, name):
            raise _wrong(
                work,
                "owner",
                work.owner,
                f"it is of type {owner.type} and {workers.called}.{registry.name} of type {name.type}: no worker's "
                "name can be both",
            )

    async def _value(self, described: Described, field: str, value: str, table: Table, column: str) -> None:
        """Check that a column can hold a value, and that its own CHECK constraints let it."""
        found, called = table.columns[column], f"{table.called}.{column}"
        if found.enum:
            rows = await self._database.fetch(f"SELECT unnest(enum_range(NULL::{found.base}))::text AS label")
            labels = [row["label"] for row in rows]
            if value not in labels:
                raise _wrong(described, field, value, f"{found.type} has no such value: {_hint(value, labels)}")
        else:
            try:
                rows = await self._database.fetch(f"SELECT $1::text::{found.type}::text AS shown", value)
            except DatabaseRefusedError as error:
                why = str(error).partition(": ")[2]
                raise _wrong(described, field, value, f"{called} is of type {found.type}: {why}") from error
            if found.base in TEXTS and rows[0]["shown"] != value:
                raise _wrong(described, field, value, f"{called} is of type {found.type}, too short for it")
        if field.startswith("where."):
            # What no row can have is no harm.
            return
        for check in await self._database.fetch(statement_text("catalogue_checks"), table.space, table.name, column):
            if not await self._passes(table, column, value, check["condition"]):
                why = f"the constraint {check['name']} of {table.called} refuses it: {check['condition']}"
                raise _wrong(described, field, value, f"{why}; say a value that it takes")

    async def _passes(self, table: Table, column: str, value: str, condition: str) -> bool:
        record = f"jsonb_populate_record(NULL::{table.quoted}, jsonb_build_object($1::text, $2::text))"
        statement = f"SELECT ({condition}) IS NOT FALSE AS passes FROM {record}"  # noqa: S608 - the catalogue's
        try:
            rows = await self._database.fetch(statement, column, value)
        except DatabaseRefusedError:
            # It asks for more than one column can tell.
            return True
        return bool(rows[0]["passes"])


def _wrong(described: Described, field: str, value: object, why: str) -> CannotStartError:
    return CannotStartError(f"{complaint(described, field, value)}{why}")


def _hint(value: str, values: Sequence[str]) -> str:
    close = difflib.get_close_matches(value, values, n=1)
    return f"did you mean {close[0]!r}?" if close else f"it has {', '.join(values)}"


def _differ(one: Column, other: Column) -> bool:
    return one.base != other.base and not any({one.base, other.base} <= kind for kind in (TEXTS, _WHOLE))


def _doubt_hidden(table: Table) -> None:
    if table.hidden:
        log.warning(
            "rows_hidden",
            table=table.called,
            doubt="row security applies to our role: what its policies hide is neither found nor put back; BYPASSRLS",
        )


def _check_told_apart(described: Described, table: Table) -> None:
    if not table.told_apart:
        raise _wrong(
            described,
            "id",
            described.id,
            f"rows are told apart by it, and no unique index of {table.called} is on it alone: name the primary key, "
            f"or CREATE UNIQUE INDEX CONCURRENTLY ON {table.quoted} ({quoted(described.id)});",
        )
    if not table.columns[described.id].not_null:
        raise _wrong(
            described, "id", described.id, f"{table.called}.{described.id} may be NULL, which tells no row from another"
        )


def _check_owner(work: WorkTable, table: Table) -> None:
    column = table.columns[work.owner]
    if column.not_null and work.free_owner is None:
        called = f"{table.called}.{work.owner}"
        raise _wrong(
            work,
            "owner",
            work.owner,
            f"{called} may not be NULL, and {work.setting}.free_owner is not set: set it to the value that says that "
            "nobody holds a row",
        )


def _check_changes(work: WorkTable, table: Table) -> None:
    for field, columns in (
        ("status", (work.status,)),
        ("owner", (work.owner,)),
        ("bump", work.bump),
        ("touch", work.touch),
        ("clear", work.clear),
        ("error", (work.error,) if work.error else ()),
        ("attempts", (work.attempts,) if work.attempts else ()),
        ("max_attempts", (work.max_attempts,) if work.max_attempts else ()),
        ("max_retries", (work.max_retries,) if work.max_retries else ()),
    ):
        for name in columns:
            column, called = table.columns[name], f"{table.called}.{name}"
            if column.generated and not field.startswith("max_"):
                raise _wrong(work, field, name, f"{called} is generated, so nobody can write it: leave it out")
            if field == "bump" and column.base not in _NUMBERS:
                raise _wrong(work, field, name, f"{called} is of type {column.type}: only a number can grow by 1")
            if field in _COUNTS and column.base not in _WHOLE:
                raise _wrong(work, field, name, f"{called} is of type {column.type}: attempts are whole numbers")
            if field == "error" and column.base not in TEXTS:
                raise _wrong(work, field, name, f"{called} is of type {column.type}: a sentence needs a text")
            if field == "touch" and column.base not in _TIMES:
                raise _wrong(work, field, name, f"{called} is of type {column.type}: only a timestamp can become now()")
            if field == "clear" and column.not_null:
                raise _wrong(work, field, name, f"{called} may not be NULL, which is what clear makes it: leave it out")


def _check_registers(registry: Registry, table: Table) -> None:
    column = table.columns[registry.name]
    if column.generated or column.base not in TEXTS:
        raise CannotStartError(
            f"register_unknown_workers = true cannot be used: the names in {table.called}.{registry.name} are of type "
            f"{column.type}, which whoever registers makes: let the workers register themselves"
        )
    written = {registry.name, registry.status, registry.heartbeat}
    needed = [
        name
        for name, found in table.columns.items()
        if found.not_null and not found.has_default and not found.generated and name not in written
    ]
    if needed:
        raise CannotStartError(
            f"register_unknown_workers = true cannot be used: a row of {table.called} needs {', '.join(needed)}, too: "
            "let the workers register themselves, or give them defaults"
        )
