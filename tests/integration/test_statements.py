"""Every statement in `liveness/sql`, prepared against the real schema."""

from importlib import resources

import asyncpg
import pytest

from liveness.settings import load
from liveness.store import Database, Store
from liveness.store.statements import statement_text

NAMES = sorted(file.name.removesuffix(".sql") for file in (resources.files("liveness") / "sql").iterdir())
STATEMENTS = [name for name in NAMES if not name.startswith("part_")]


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_statement_is_understood_by_postgres(dsn: str, name: str) -> None:
    """Each prepares, in both modes, with the built-in tables."""
    settings, _ = load({}, postgres_dsn=dsn)
    database = Database(dsn)
    store = await Store.open(database, settings)
    statements = store.epochs._statements
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
    await database.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_statement_says_what_it_does(name: str) -> None:
    """Its file begins with a comment, unless it is a part of others."""
    assert statement_text(name).startswith("-- ") or name.startswith("part_")
