"""A host's Postgres for the benchmarks: its tables and ours, as `liveness.embedded` runs it (without fsync)."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from liveness.embedded import PostgresServer
from liveness.embedded.temporary import TemporaryFolder
from liveness.store import Database, migrate

# What a database is called that has all tables, for others to be copied from.
MIGRATED: Final = "migrated"


@asynccontextmanager
async def postgres(**options: str) -> AsyncIterator[PostgresServer]:
    """Run a Postgres with these settings while the body runs."""
    folder = TemporaryFolder.make()
    server = PostgresServer(folder.path / "postgres", options=options)
    await server.start()
    try:
        await _create(server, MIGRATED, "template1")
        database = Database(_named(server, MIGRATED))
        await database.connect()
        await migrate(database, "public", host_tables=True)
        await database.close()
        yield server
    finally:
        await server.stop()
        folder.remove()


async def host(server: PostgresServer, name: str) -> str:
    """Make a database with the host's tables and ours; return its address."""
    await _create(server, name, MIGRATED)
    return _named(server, name)


async def empty(server: PostgresServer, name: str) -> str:
    """Make a database with nothing in it; return its address."""
    await _create(server, name, "template1")
    return _named(server, name)


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """Be connected while the body runs."""
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def _create(server: PostgresServer, name: str, template: str) -> None:
    async with connected(server.dsn) as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")


def _named(server: PostgresServer, name: str) -> str:
    return urlsplit(server.dsn)._replace(path=f"/{name}").geturl()
