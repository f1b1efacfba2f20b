"""What Postgres says of itself, and what of the host's tables is amiss just now: read by `liveness check`."""

import time
from collections.abc import Callable

import msgspec

from liveness.limits import SKEW_SECONDS, PostgresLimits
from liveness.settings import Settings
from liveness.store.catalogue import read_catalogue
from liveness.store.database import Database
from liveness.store.statements import Statements, statement_text
from liveness.work import WorkTable, quoted

# The quickest of so many round trips says how far away it is; and how far apart the clocks are, most exactly.
ROUND_TRIPS = 5


class Ahead(msgspec.Struct, frozen=True):
    """Rows of `table` of which `column` lies in the future, by up to `seconds`."""

    table: str
    column: str
    rows: int
    seconds: float


class Holder(msgspec.Struct, frozen=True):
    """A session that has had rows of `table` locked for up to `age` seconds."""

    table: str
    pid: int
    state: str
    age: float


async def read_limits(database: Database, clock: Callable[[], float]) -> PostgresLimits:
    """Return them, with how far Postgres' clock is from `clock` (seconds since 1970).

    Raises DatabaseAwayError, DatabaseRefusedError.
    """
    trips = []
    async with database.transaction() as connection:
        (row,) = await connection.fetch(statement_text("server_limits"))
        for _ in range(ROUND_TRIPS):
            began, asked = time.monotonic(), clock()
            there = await connection.fetchval(statement_text("server_time"))
            took = time.monotonic() - began
            trips.append((took, there - asked - took / 2))
    took, skew = min(trips)
    limits = {
        name: (row[name] or 0) / 1000
        for name in ("statement_timeout", "transaction_timeout", "idle_session_timeout", "deadlock_timeout")
    }
    unwritable = (
        "it is a standby" if row["standby"] else "default_transaction_read_only is on" if row["read_only"] else ""
    )
    return PostgresLimits(
        version=row["version"],
        role=row["role"],
        unwritable=unwritable,
        connections=row["connections"],
        round_trip=took,
        skew=skew,
        skew_error=took / 2,
        **limits,
    )


async def rows_ahead(database: Database, settings: Settings) -> list[Ahead]:
    """Return what is dated in the future. Raises as `read_catalogue` does, DatabaseAwayError, DatabaseRefusedError."""
    statements, found = await read_catalogue(database, settings.postgres_schema, settings.tables)
    asked: list[tuple[str, str, str, list[object]]] = [
        (found[""].called, statements.registry.heartbeat, statements["beats_ahead"], [SKEW_SECONDS])
    ]
    asked += [
        (found[work.work].called, work.touched, *_work_ahead(statements, work))
        for work in statements.works
        if work.touched is not None
    ]
    ahead = []
    for table, column, statement, parameters in asked:
        (row,) = await database.fetch(statement, *parameters, patient=True)
        if row["items"]:
            ahead.append(Ahead(table, column, row["items"], row["ahead"]))
    return ahead


def _work_ahead(statements: Statements, work: WorkTable) -> tuple[str, list[object]]:
    given = statements.given("work_ahead", work)
    return statements.on(work, "work_ahead"), [work.running, SKEW_SECONDS, *given]


async def holders(database: Database, settings: Settings) -> list[Holder]:
    """Return who has had rows of a table of work locked for longer than `workflow_stuck_timeout`. Raises likewise."""
    _, found = await read_catalogue(database, settings.postgres_schema, settings.tables)
    held = []
    for work in settings.tables.works:
        table = found[work.work]
        rows = await database.fetch(
            statement_text("holders"), f"{quoted(table.space)}.{quoted(table.name)}", settings.workflow_stuck_timeout
        )
        held += [Holder(table.called, row["pid"], row["state"] or "unknown", row["age"]) for row in rows]
    return held
