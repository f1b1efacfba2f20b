"""`liveness serve`: the sidecar."""

import asyncio
import signal
import sys
from collections.abc import Callable

import click
import structlog

from liveness.cli.options import servers, settings_for
from liveness.errors import SettingsError
from liveness.logs import configure
from liveness.service import Service
from liveness.settings import Settings
from liveness.tracing import collecting

log = structlog.get_logger("liveness.serve")


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises CannotStartError or SettingsError when the service cannot start.

    SIGHUP ends it where it says that the terminal is gone. Elsewhere somebody means that it should read its settings
    anew, and is told how: unheeded, it would end the service on the spot, with the lead in its hands.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # What was ignored when we began stays so: nohup.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop.set if sys.stderr.isatty() else _stay)
    async with collecting():
        await Service(settings).run(stop)


def _stay() -> None:
    log.warning("settings_stay", advice="start it anew for other settings: SIGTERM, and whoever runs it does the rest")


def loop_factory(event_loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop that the setting names, None for asyncio's own.

    Raises SettingsError when uvloop is asked for by name and is not there.
    """
    if event_loop == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415 - an extra
    except ImportError as error:
        if event_loop == "auto":
            return None
        raise SettingsError(
            f"event_loop = uvloop cannot be had ({error}): pip install 'liveness[server,fast]', or leave it at auto"
        ) from error
    made: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return made


@click.command("serve")
@servers
@click.option("--mode", help="act, or observe: decide, record, show, touch nothing of the host's.")
@click.option("--shard", help="Own the share i of n of the workers only, as in 0/4.")
@click.option("--http-listen", help="host:port of /livez, /readyz and /metrics.")
def command(**overrides: str | None) -> None:
    """Run the sidecar: hear heartbeats, give back the work of workers that stopped.

    Waits for NATS and Postgres if they are not up yet; stops on SIGTERM.
    """
    settings = settings_for(**overrides)
    configure(settings.log_format, settings.log_level)
    with asyncio.Runner(loop_factory=loop_factory(settings.event_loop)) as runner:
        runner.run(serve(settings))
