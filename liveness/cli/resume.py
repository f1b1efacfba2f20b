"""`liveness resume`: end a pause."""

import asyncio

import click

from liveness.cli.alone import connected
from liveness.cli.options import as_json, print_json, settings_for
from liveness.cli.pause import operator
from liveness.postgres_settings import database_of
from liveness.settings import Settings
from liveness.shown import printable
from liveness.store import check_pause, resume


async def run(settings: Settings, by: str) -> bool:
    """Resume; return whether it was paused."""
    async with connected(settings) as database:
        await check_pause(database)
        return await resume(database, by=by)


@click.command("resume")
@click.option("--postgres-dsn", help="The workflow server's database (LIVENESS_POSTGRES_DSN).")
@click.option("--by", help="Who resumes; user@host if not given.")
@as_json
def command(*, by: str | None, json_output: bool, postgres_dsn: str | None) -> None:
    """End what `liveness pause` began.

    Within two seconds whoever was silent for its ttl by then, or has ended, loses its work; a storm holds as ever.
    """
    settings = settings_for(postgres_dsn=postgres_dsn)
    was_paused = asyncio.run(run(settings, by or operator()))
    if json_output:
        print_json({"was_paused": was_paused})
    else:
        said = "resumed" if was_paused else "it was not paused"
        click.echo(printable(f"{said}, in the database {database_of(settings.postgres_dsn)}"))
