"""`liveness serve`: the sidecar."""

import asyncio
import signal

import click

from liveness.cli.options import servers, settings_for
from liveness.logs import configure
from liveness.service import Service
from liveness.settings import Settings


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises CannotStartError or SettingsError when the service cannot start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Service(settings).run(stop)


@click.command("serve")
@servers
@click.option("--mode", help="act, or observe: decide, record, show, touch nothing of the host's.")
@click.option("--http-listen", help="host:port of /livez and /readyz.")
def command(**overrides: str | None) -> None:
    """Run the sidecar: hear heartbeats, give back the work of workers that stopped.

    Waits for NATS and Postgres if they are not up yet; stops on SIGTERM.
    """
    settings = settings_for(**overrides)
    configure(settings.log_format, settings.log_level)
    asyncio.run(serve(settings))
