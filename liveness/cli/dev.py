"""`liveness dev`: embedded servers and the service, in the foreground."""

import asyncio
from pathlib import Path

import click

from liveness.cli.migrate import run as migrate
from liveness.cli.options import settings_for
from liveness.cli.serve import serve
from liveness.embedded import Servers
from liveness.logs import configure


async def run(folder: Path, http_listen: str | None) -> None:
    """Start the servers in `folder`, migrate, and serve until stopped."""
    async with Servers(folder, durable=True) as servers:
        settings = settings_for(
            nats_url=servers.nats_url,
            postgres_dsn=servers.postgres_dsn,
            http_listen=http_listen,
            register_unknown_workers=True,
        )
        configure(settings.log_format, settings.log_level)
        await migrate(settings, host_tables=True)
        click.echo(f"export LIVENESS_NATS_URL={servers.nats_url} LIVENESS_POSTGRES_DSN={servers.postgres_dsn}")
        await serve(settings)


@click.command("dev")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".liveness"),
    show_default=True,
    help="Where the servers keep their data.",
)
@click.option("--http-listen", help="host:port of /livez, /readyz, /metrics and the page.")
def command(folder: Path, http_listen: str | None) -> None:
    """Run NATS, Postgres and the service on this machine, for development; stop with Ctrl-C.

    Prints the two settings that let other commands find them.
    """
    # Not on uvloop: it starts no process as another user, as which Postgres has to run when we are root.
    asyncio.run(run(folder, http_listen))
