"""What stays prepared in a session with Postgres, with a server process of its own and behind a pooler."""

from typing import Any

import asyncpg
import pytest

from liveness.errors import DatabaseAwayError
from liveness.store import Database
from liveness.store.sessions import STATEMENTS_KEPT
from tests.conftest import SOON
from tests.pgbouncer import PgBouncer

# Asked by name, as all statements are that take something.
KEPT = "SELECT count(*) AS kept, sum(custom_plans) AS custom, sum(generic_plans) AS generic FROM pg_prepared_statements"
OURS = f"{KEPT} WHERE statement = $1"
ASKED = "SELECT n FROM kept WHERE n = $1"


@pytest.fixture
async def table(dsn: str) -> str:
    """A table of a host's."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE kept (n integer); INSERT INTO kept VALUES (7)")
    await connection.close()
    return dsn


async def test_a_statement_is_parsed_once_and_planned_every_time(table: str) -> None:
    """A plan for whatever values would be kept when the table has grown."""
    database = Database(table, SOON)
    for _ in range(10):
        async with database.transaction(reserved=True) as connection:
            assert await connection.fetchval(ASKED, 7) == 7
    async with database.transaction(reserved=True) as connection:
        (row,) = await connection.fetch(OURS, ASKED)

    assert tuple(row) == (1, 10, 0)
    await database.close()


async def test_no_statement_stays_behind_a_pooler(table: str, pgbouncer: PgBouncer) -> None:
    """The session is another client's next, and found as it was."""
    pooled = Database(pgbouncer.dsn(table.rpartition("/")[2]), SOON)
    for _ in range(10):
        async with pooled.transaction() as connection:
            assert await connection.fetchval(ASKED, 7) == 7
    async with pooled.transaction() as connection:
        (row,) = await connection.fetch(OURS, ASKED)

    assert row["kept"] == 0
    assert pooled._sessions.pooled
    await pooled.close()


async def test_a_pooler_is_looked_for_until_one_is_found(
    table: str, pgbouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once there is one, no connection is made in vain."""
    sizes = []
    connect = asyncpg.connect

    async def noted(*arguments: Any, **options: Any) -> Any:
        sizes.append(options["statement_cache_size"])
        return await connect(*arguments, **options)

    monkeypatch.setattr(asyncpg, "connect", noted)
    for dsn in (table, pgbouncer.dsn(table.rpartition("/")[2])):
        database = Database(dsn, SOON)
        async with database.transaction(), database.transaction(), database.transaction(reserved=True):
            pass
        await database.close()

    assert sizes == [STATEMENTS_KEPT] * 3 + [STATEMENTS_KEPT] + [0] * 3


async def test_a_table_that_the_host_alters_costs_one_try(table: str) -> None:
    """What its statements return has changed; the next transaction is told so anew."""
    database = Database(table, SOON)
    await database.fetch("SELECT * FROM kept WHERE n > $1", 0)
    await database.fetch("ALTER TABLE kept ADD COLUMN name text DEFAULT 'new'")

    with pytest.raises(DatabaseAwayError, match="InvalidCachedStatementError"):
        await database.fetch("SELECT * FROM kept WHERE n > $1", 0)
    assert [tuple(row) for row in await database.fetch("SELECT * FROM kept WHERE n > $1", 0)] == [(7, "new")]
    await database.close()


async def test_a_session_that_has_lost_its_statements_is_given_up(table: str) -> None:
    """Somebody between us and Postgres has forgotten them: one try fails, and the next one is in a new session."""
    database = Database(table, SOON)
    await database.fetch(ASKED, 7)
    async with database.transaction() as connection:
        await connection.execute("DEALLOCATE ALL")

    with pytest.raises(DatabaseAwayError, match="InvalidSQLStatementNameError"):
        await database.fetch(ASKED, 7)
    assert [tuple(row) for row in await database.fetch(ASKED, 7)] == [(7,)]
    await database.close()
