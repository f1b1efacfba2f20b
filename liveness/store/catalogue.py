"""Whether the host's database can be worked with as it is, and the statements fitted to its tables."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import structlog

from liveness.errors import CannotStartError
from liveness.store.database import Database
from liveness.store.statements import UNDIVIDED, Statements, statement_text
from liveness.subjects import Subjects
from liveness.tables import Tables
from liveness.work import KEYS, Column, Registry, WorkTable, quoted

log = structlog.get_logger("liveness.catalogue")

# Our transactions speak UTC, so an instant without its zone is read as UTC.
_UTC = {"UTC", "GMT", "UCT", "Zulu", "Universal"}
_INSTANT = re.compile(r"timestamp(?:\((\d)\))? with(out)? time zone")
# Digits of a second. With fewer, what a process claims first may look older than the process.
_LEAST_DIGITS = 3
# What a person calls what is no table, by relkind.
_NO_TABLES: Final = {
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "c": "a type",
}

# What sessions have that do not set it: that of the database, or of our role.
_ZONE = "SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'"


class Present(Column, frozen=True, kw_only=True):
    """A column as it is, with all that is checked of it. `dated`: its type with the digits that it keeps."""

    dated: str
    not_null: bool
    generated: bool
    has_default: bool


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """A table as it is. `told_apart`: an index sees to it that no two rows have the same id. `hidden`: row security."""

    space: str
    name: str
    columns: Mapping[str, Present]
    told_apart: bool
    hidden: bool

    @property
    def called(self) -> str:
        """Schema and name."""
        return f"{self.space}.{self.name}"

    @property
    def quoted(self) -> str:
        """The same, as Postgres reads it literally."""
        return f"{quoted(self.space)}.{quoted(self.name)}"


async def check_encoding(database: Database) -> None:
    """Raise CannotStartError unless every name that NATS can bring can be written in this database."""
    rows = await database.fetch("SELECT current_setting('server_encoding') AS encoding")
    if (encoding := rows[0]["encoding"]) != "UTF8":
        raise CannotStartError(
            f"the database's encoding is {encoding}, in which not every worker's name can be written: use one of UTF8"
        )


async def read_catalogue(
    database: Database, schema: str, tables: Tables, subjects: Subjects = UNDIVIDED
) -> tuple[Statements, Mapping[str, Table]]:
    """Fit the descriptions to the host's real tables; return the statements for them, and the tables by name.

    The name is the kind of work; the registry's is empty. Raises CannotStartError that names the table and the columns
    that are missing, do not date anything, or do not tell anybody from others.
    """
    zone: str = (await database.fetch(_ZONE))[0]["reset_val"]
    found: dict[str, Table] = {}

    async def fitted(described: WorkTable | Registry, dates: str | None) -> Table:
        table = await _table(database, described, schema)
        if dates is not None:
            _check_dates(f"{table.called}.{dates}", table.columns[dates].dated, zone)
        return table

    registry = tables.registry
    found[""] = await fitted(registry, registry.heartbeat)
    _check_key(registry, "name", registry.name, found[""])
    works = []
    for work in tables.works:
        found[work.work] = await fitted(work, work.touched)
        _check_key(work, "owner", work.owner, found[work.work])
        works.append(work.present(found[work.work].columns))
    return Statements(schema, registry.present(found[""].columns), works, subjects), found


async def _table(database: Database, described: WorkTable | Registry, schema: str) -> Table:
    space = described.schema or schema
    called = f"{space}.{described.table}"
    rows = await database.fetch(statement_text("catalogue_columns"), space, described.table)
    if not rows:
        raise CannotStartError(await _no_table(database, described, space))
    kind = rows[0]["kind"]
    if kind in _NO_TABLES:
        raise CannotStartError(
            f"{complaint(described, 'table', described.table)}{called} is {_NO_TABLES[kind]}, whose rows cannot be "
            "locked: name the table behind it"
        )
    columns = {
        row["name"]: Present(
            type=row["type"], base=row["base"], enum=row["enum"], dated=row["dated"], not_null=row["not_null"],
            generated=row["generated"], has_default=row["has_default"],
        )
        for row in rows
    }  # fmt: skip
    _check_columns(described, called, columns)
    unique = await database.fetch(statement_text("catalogue_unique"), space, described.table, described.id)
    return Table(
        space=space,
        name=described.table,
        columns=columns,
        told_apart=unique[0]["told_apart"],
        hidden=rows[0]["hidden"],
    )


async def _no_table(database: Database, described: WorkTable | Registry, space: str) -> str:
    if not described.setting:
        return (
            f"there is no table {space}.{described.table}: point postgres_schema at the workflow server's schema, or "
            "create reference tables with `liveness migrate --host-tables`"
        )
    rows = await database.fetch(statement_text("catalogue_tables"))
    names = [f"{row['space']}.{row['name']}" for row in rows]
    elsewhere = [name for name in names if name.endswith(f".{described.table}")]
    close = elsewhere or difflib.get_close_matches(f"{space}.{described.table}", names, n=1)
    hint = f"did you mean {close[0]}?" if close else "check the schema, and which database postgres_dsn names"
    return f"{complaint(described, 'table', described.table)}there is no table {space}.{described.table}: {hint}"


def _check_columns(described: WorkTable | Registry, called: str, columns: Mapping[str, Column]) -> None:
    if described.setting:
        for field, column in named_columns(described):
            if column not in columns:
                close = difflib.get_close_matches(column, columns, n=1)
                hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(columns)}"
                raise CannotStartError(
                    f"{complaint(described, field, column)}the table {called} has no such column: {hint}"
                )
    elif missing := [column for column in described.required if column not in columns]:
        raise CannotStartError(f"the table {called} has no column {', '.join(missing)}")


def named_columns(described: WorkTable | Registry) -> list[tuple[str, str]]:
    """Return every column that a description names, with the setting that does."""
    if isinstance(described, Registry):
        fields: Sequence[str] = ("id", "name", "heartbeat", "status")
    else:
        fields = (
            "id", "status", "owner", "queue", "kind", "touched", "bump", "touch", "clear",
            "error", "attempts", "max_attempts", "max_retries",
        )  # fmt: skip
    found = []
    for field in fields:
        value = getattr(described, field)
        found += [(field, column) for column in ((value,) if isinstance(value, str) else value or ())]
    if isinstance(described, WorkTable):
        found += [(f"where.{where.column}", where.column) for where in described.where]
    return found


def _check_key(described: WorkTable | Registry, field: str, column: str, table: Table) -> None:
    """Raise CannotStartError for a column by whose values one worker cannot be told from another."""
    found = table.columns[column]
    if found.base in KEYS:
        return
    said = complaint(described, field, column) or f"{table.called}.{column}: "
    why = (
        ", where names that differ only in case are the same"
        if found.base == "citext"
        else ", which pads what it holds"
        if found.base == "character"
        else ""
    )
    raise CannotStartError(
        f"{said}it is of type {found.type}{why}: a worker is told by a text, varchar, uuid, bigint, integer or smallint"
    )


def complaint(described: WorkTable | Registry, field: str, value: object) -> str:
    """Return how a complaint about a setting begins; nothing for a built-in table."""
    return f"{described.setting}.{field} = {value!r}: " if described.setting else ""


def _check_dates(column: str, kind: str, zone: str) -> None:
    """Raise CannotStartError for a column by which no age can be told: living work would look old, or dead work new."""
    instant = _INSTANT.fullmatch(kind)
    if instant is None or int(instant[1] or 6) < _LEAST_DIGITS:
        raise CannotStartError(f"{column} is of type {kind}: ages are told by it, so it has to be a timestamptz")
    if instant[2] is None:
        return
    if zone.removeprefix("Etc/") not in _UTC:
        raise CannotStartError(
            f"{column} is of type {kind}, and the database's time zone is {zone}: nobody can tell how old it is. Make "
            "it a timestamptz; or, if whoever writes it writes UTC, say so: ALTER ROLE <liveness> SET timezone = 'UTC'"
        )
    log.warning("dates_doubtful", column=column, doubt="it has no time zone, and is taken to be in UTC")
