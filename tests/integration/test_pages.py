"""Every statement that a page shows is one for the tables that it is about."""

import re
from pathlib import Path

import asyncpg

from tests.conftest import HostTables

ROOT = Path(__file__).parents[2]
STATEMENTS = [
    (page.name, statement)
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for statement in re.findall(r"^ *```sql\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
]


async def test_every_statement_can_be_used(host: HostTables) -> None:
    """Postgres takes each of them, with the schema that is there behind `liveness migrate`."""
    assert len(STATEMENTS) >= 4
    wrong = []
    for page, statement in STATEMENTS:
        try:
            await host.connection.prepare(statement)
        except asyncpg.PostgresError as error:
            wrong.append(f"{page}: {error}")

    assert wrong == []
