"""Every statement in `liveness/sql`, prepared against the real schema."""

import asyncio
import re
from collections.abc import Callable, Iterator
from importlib import resources
from typing import Any

import asyncpg
import pytest

from liveness.embedded import PostgresServer
from liveness.settings import load
from liveness.store import Database, Store
from liveness.store.statements import Statements, statement_text
from tests.conftest import fresh_database
from tests.integration.test_tables import (
    NUMBERED,
    NUMBERED_SETTINGS,
    REGISTERED,
    REGISTERED_SETTINGS,
    UNREGISTERED,
    UNREGISTERED_SETTINGS,
)

NAMES = sorted(file.name.removesuffix(".sql") for file in (resources.files("liveness") / "sql").iterdir())
STATEMENTS = [name for name in NAMES if not name.startswith("part_")]


@pytest.fixture(scope="module")
def unchanged(postgres: PostgresServer, command: Callable[[str], None]) -> Iterator[tuple[str, Statements]]:
    """A database that is only looked at, and our statements on it: one for all of them."""

    async def opened(dsn: str) -> Statements:
        database = Database(dsn)
        store = await Store.open(database, load({}, postgres_dsn=dsn)[0])
        await database.close()
        return store.epochs._statements

    with fresh_database(postgres, command, "migrated") as dsn:
        yield dsn, asyncio.run(opened(dsn))


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_is_understood_by_postgres(unchanged: tuple[str, Statements], name: str) -> None:
    """Each prepares, in both modes, with the built-in tables."""
    dsn, statements = unchanged
    connection = await asyncpg.connect(dsn)
    on_work = any(part in statement_text(name) for part in ("{work_table}", "{moved}"))

    texts = (
        [statements.on(work, name, observed=observed) for work in statements.works for observed in (False, True)]
        if on_work
        else [statements[name]]
    )
    for text in texts:
        await connection.prepare(text)

    await connection.close()


@pytest.mark.parametrize(
    ("tables", "described"),
    [
        (NUMBERED, NUMBERED_SETTINGS),
        (UNREGISTERED, UNREGISTERED_SETTINGS),
        (REGISTERED, REGISTERED_SETTINGS),
    ],
)
async def test_every_statement_is_understood_on_other_tables(
    dsn: str, stores: Callable[..., Any], tables: str, described: dict[str, Any]
) -> None:
    """Whose owners are numbers, UUIDs and ids, whose registry has no status, is ours, or is one of ids."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(tables)
    statements = (await stores(**described)).epochs._statements
    of_status = {"mark_offline", "set_back", "degrade", "set_online", "owed_offlined"}
    unused = of_status if statements.registry.status is None else set()
    if statements.registry.name_type == "bigint":
        # Refused at start.
        unused.add("register")

    for name in STATEMENTS:
        if name in unused:
            continue
        on_work = any(part in statement_text(name) for part in ("{work_table}", "{moved}"))
        works = [(work, observed) for work in statements.works for observed in (False, True)] if on_work else [None]
        for one in works:
            await connection.prepare(statements[name] if one is None else statements.on(one[0], name, observed=one[1]))
    await connection.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_speaks_of_owners_and_statuses_by_their_parts(name: str) -> None:
    """An owner may be a number or an id of the registry, a status an enum: compared by themselves, they are neither."""
    text = re.sub(r"--[^\n]*", "", statement_text(name))

    assert not re.search(
        r"\{status\} *=|\{owner\} *(=|IN|<>) |\{registry_name\} *= |\{registry_status\}::text = ANY", text
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_says_what_it_does(name: str) -> None:
    """Its file begins with a comment, unless it is a part of others."""
    assert statement_text(name).startswith("-- ") or name.startswith("part_")
