"""Whether the host's database can be worked with as it is, and the statements fitted to its tables."""

import re
from collections.abc import Mapping, Sequence

import structlog

from liveness.errors import CannotStartError
from liveness.store.database import Database
from liveness.store.statements import UNDIVIDED, Statements
from liveness.subjects import Subjects
from liveness.work import Registry, WorkTable

log = structlog.get_logger("liveness.catalogue")

# Our transactions speak UTC, so an instant without its zone is read as UTC.
_UTC = {"UTC", "GMT", "UCT", "Zulu", "Universal"}
_INSTANT = re.compile(r"timestamp(?:\((\d)\))? with(out)? time zone")
# Digits of a second. With fewer, what a process claims first may look older than the process.
_LEAST_DIGITS = 3

_COLUMNS = """
    SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type,
        CASE WHEN t.typtype = 'd' THEN format_type(t.typbasetype, t.typtypmod) END AS base
    FROM pg_attribute AS a
    JOIN pg_type AS t ON t.oid = a.atttypid
    JOIN pg_class AS c ON c.oid = a.attrelid
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped
"""
# What sessions have that do not set it: that of the database, or of our role.
_ZONE = "SELECT reset_val FROM pg_settings WHERE name = 'TimeZone'"


async def check_encoding(database: Database) -> None:
    """Raise CannotStartError unless every name that NATS can bring can be written in this database."""
    rows = await database.fetch("SELECT current_setting('server_encoding') AS encoding")
    if (encoding := rows[0]["encoding"]) != "UTF8":
        raise CannotStartError(
            f"the database's encoding is {encoding}, in which not every worker's name can be written: use one of UTF8"
        )


async def read_catalogue(
    database: Database, schema: str, registry: Registry, works: Sequence[WorkTable], subjects: Subjects = UNDIVIDED
) -> Statements:
    """Fit the descriptions to the host's real tables and return the statements for them.

    Raises CannotStartError that names the table and the columns that are missing, or do not date anything.
    """
    zone: str = (await database.fetch(_ZONE))[0]["reset_val"]

    async def columns(table: str, required: Sequence[str], dates: str) -> Mapping[str, str]:
        rows = await database.fetch(_COLUMNS, schema, table)
        found = {row["name"]: row["type"] for row in rows}
        if not found:
            raise CannotStartError(
                f"there is no table {schema}.{table}: point postgres_schema at the workflow server's schema, or "
                "create reference tables with `liveness migrate --host-tables`"
            )
        if missing := [column for column in required if column not in found]:
            raise CannotStartError(f"the table {schema}.{table} has no column {', '.join(missing)}")
        base = next(row["base"] for row in rows if row["name"] == dates)
        _check_dates(f"{schema}.{table}.{dates}", base or found[dates], zone)
        return found

    return Statements(
        schema,
        registry.present(await columns(registry.table, registry.required, registry.heartbeat)),
        [work.present(await columns(work.table, work.required, work.touch[0])) for work in works],
        subjects,
    )


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
