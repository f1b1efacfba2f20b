"""What an application asks of Postgres and writes there, counted exactly: by the server's log, and by triggers.

Postgres's own statistics would do for neither: they count transactions and not statements, and come up to 10 s late.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg

from liveness.embedded import PostgresServer

# For a server whose log is to be counted: each statement is a line that begins with the application's name. Without the
# parameters, which may be long.
OPTIONS: Final[Mapping[str, str]] = {
    "log_statement": "all",
    "log_line_prefix": "%a|",
    "log_parameter_max_length": "0",
}
# Lines of one statement but the first begin with a tab.
_STATEMENT: Final = re.compile(
    rb"^(?P<application>[^|\n]*)\|LOG:  (?:statement|execute [^:\n]+): (?P<text>.*(?:\n\t.*)*)", re.MULTILINE
)
_WRITTEN: Final = """
    CREATE SCHEMA ledger;
    CREATE TABLE ledger.written (relation text NOT NULL, rows bigint NOT NULL);
    CREATE FUNCTION ledger.note() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO ledger.written SELECT TG_TABLE_NAME, count(*) FROM changed HAVING count(*) > 0;
            RETURN NULL;
        END
    $$;
"""
_TABLES: Final = """
    SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
    WHERE schemaname NOT IN ('ledger', 'pg_catalog', 'information_schema')
"""


class Reading(NamedTuple):
    """How many statements were asked until now, and how many rows were inserted, updated or deleted."""

    statements: int
    rows: int

    def since(self, before: "Reading") -> "Reading":
        """Return what came since `before`."""
        return Reading(self.statements - before.statements, self.rows - before.rows)


class Ledger:
    """Counts for one application in the database of `connection`.

    `pattern` chooses statements by their text, `relation` the table whose rows are counted; without them, all.
    """

    def __init__(
        self,
        server: PostgresServer,
        connection: "asyncpg.Connection[asyncpg.Record]",
        application: str,
        *,
        pattern: str = "",
        relation: str | None = None,
    ) -> None:
        self._log: Final[Path] = server.folder / "postgres.log"
        self._connection = connection
        self._application = application.encode()
        self._pattern = re.compile(pattern.encode())
        self._relation = relation

    async def open(self) -> None:
        """Note from now on what is written in all tables that are there."""
        await self._connection.execute(_WRITTEN)
        for row in await self._connection.fetch(_TABLES):
            for event, changed in (("INSERT", "NEW"), ("UPDATE", "NEW"), ("DELETE", "OLD")):
                await self._connection.execute(
                    f"CREATE TRIGGER ledger_{event} AFTER {event} ON {row['name']}"
                    f" REFERENCING {changed} TABLE AS changed FOR EACH STATEMENT EXECUTE FUNCTION ledger.note()"
                )

    async def read(self) -> Reading:
        """Read what was counted until now."""
        statements = sum(
            found["application"] == self._application and self._pattern.search(found["text"]) is not None
            for found in _STATEMENT.finditer(self._log.read_bytes())
        )
        rows = await self._connection.fetchval(
            "SELECT coalesce(sum(rows), 0)::bigint FROM ledger.written WHERE $1::text IS NULL OR relation = $1",
            self._relation,
        )
        return Reading(statements, rows)
