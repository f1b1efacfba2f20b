"""`liveness migrate`: create or upgrade the schema `liveness`."""

import asyncio

import click

from liveness.cli.options import as_json, print_json, settings_for
from liveness.settings import Settings
from liveness.shown import printable
from liveness.store import Database, Migrated, migrate


async def run(settings: Settings, *, host_tables: bool) -> Migrated:
    """Migrate, waiting for Postgres if it is not up yet, and for whoever holds what is to be changed."""
    database = Database.of(settings)
    told: set[str] = set()

    def wait(cause: str) -> None:
        # Of one that goes on, once.
        if (whom := cause.partition(", for ")[0]) not in told:
            told.add(whom)
            click.echo(f"liveness: waiting, and nothing has changed yet: {printable(cause)}", err=True)

    try:
        await database.connect(lambda cause: click.echo(f"waiting for Postgres: {cause}", err=True))
        return await migrate(database, settings.postgres_schema, host_tables=host_tables, on_wait=wait)
    finally:
        await database.close()


@click.command("migrate")
@click.option("--postgres-dsn", help="The workflow server's database (LIVENESS_POSTGRES_DSN).")
@click.option("--host-tables", is_flag=True, help="Also create reference tables of a workflow server.")
@as_json
def command(*, postgres_dsn: str | None, host_tables: bool, json_output: bool) -> None:
    """Create or upgrade the schema `liveness` in the workflow server's database.

    Safe to repeat, and for several to run at once. Touches nothing of the server's own tables; --host-tables creates
    them where they are missing, for trying things out. Whoever holds a table of the schema is named, and waited for in
    between the service's own work: an interrupt changes nothing.
    """
    settings = settings_for(postgres_dsn=postgres_dsn)
    migrated = asyncio.run(run(settings, host_tables=host_tables))
    if json_output:
        print_json(migrated)
    else:
        done = f"applied {', '.join(migrated.applied)}" if migrated.applied else "nothing to do"
        click.echo(f"schema liveness is at version {migrated.version}: {done}")
        if host_tables:
            click.echo(f"reference tables are in schema {settings.postgres_schema}")
