"""`liveness pause`: the emergency brake. Nothing is taken from anybody until somebody resumes."""

import asyncio
import getpass
import re
import socket

import click

from liveness.answers import Pause
from liveness.cli.alone import connected
from liveness.cli.options import as_json, print_json, settings_for
from liveness.postgres_settings import database_of
from liveness.settings import Settings
from liveness.shown import printable
from liveness.store import check_pause, pause

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
# Nobody means a pause of years.
LONGEST = 30 * 86400
# A line of the log, of the status page and of a message.
REASON_LENGTH = 300


class Span(click.ParamType[float]):
    """A span of time: `90`, `90s`, `15m`, `2h`, `1d`."""

    name = "span"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return it in seconds."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value).strip())
        seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
        if not 0 < seconds <= LONGEST:
            self.fail(f"{value!r} is no span of time up to 30 days, as in 90s, 15m, 2h or 1d", param, ctx)
        return seconds


def operator() -> str:
    """Return who runs this command, as user@host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        # In a container, a number may have no name.
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


async def run(settings: Settings, *, by: str, why: str, seconds: float | None) -> Pause:
    """Pause; return when nothing that began before can take anything any more."""
    told: list[str] = []

    def say() -> None:
        if not told:
            told.append("liveness: paused; waiting for a reclaim that began before")
            click.echo(told[0], err=True)

    async with connected(settings) as database:
        await check_pause(database)
        return await pause(database, by=by, why=why, seconds=seconds, on_wait=say)


@click.command("pause")
@click.option("--postgres-dsn", help="The workflow server's database (LIVENESS_POSTGRES_DSN).")
@click.option("--reason", default="", help="Why, for whoever finds it paused.")
@click.option("--for", "seconds", type=Span(), help="End by itself after so long, as in 15m or 2h.")
@click.option("--by", help="Who pauses; user@host if not given.")
@as_json
def command(*, reason: str, seconds: float | None, by: str | None, json_output: bool, postgres_dsn: str | None) -> None:
    """Take nothing from anybody any more, until `liveness resume`.

    Needs Postgres alone, and holds for every replica at once: when this has returned, nothing is put back, marked
    OFFLINE or set aside, be it for silence, a goodbye, a restart, a sweep or an operator's command. Heartbeats are
    heard as before; whoever dies meanwhile waits, and goes when somebody resumes. Paused already, it says anew why and
    for how long.
    """
    settings = settings_for(postgres_dsn=postgres_dsn)
    found = asyncio.run(run(settings, by=_word(by or operator()), why=_word(reason), seconds=seconds))
    if json_output:
        print_json(found)
    else:
        click.echo(printable(str(found)))
        # Where the settings were not found, it is the default's, and not the one that burns.
        click.echo(printable(f"in the database {database_of(settings.postgres_dsn)}"))
        click.echo("nothing is taken from anybody; `liveness status` shows who waits")


def _word(text: str) -> str:
    """Return what Postgres, a log and a terminal can bear of it, in one line."""
    return printable(" ".join(text.split()))[:REASON_LENGTH]
