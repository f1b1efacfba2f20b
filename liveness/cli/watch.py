"""`liveness watch`: the same as `liveness status`, live."""

import asyncio
import json

import click
import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live

from liveness.answers import PAGE, StatusAnswer, StatusRequest
from liveness.cli.asking import READ_SECONDS, ask
from liveness.cli.options import as_json, servers, settings_for, shard
from liveness.cli.status import RECENT_SHOWN, asked, shown
from liveness.cli.terminal import console_for, literal
from liveness.errors import NatsAwayError, NoServiceError
from liveness.settings import Settings


@click.command("watch")
@servers
@shard
@click.option("--limit", type=click.IntRange(0, PAGE), default=20, show_default=True, help="Workers at most.")
@click.option("--name", default="", help="Only workers with this in their names.")
@click.option(
    "--every", type=click.FloatRange(0.2, 3600), default=1.0, show_default=True, help="Seconds between two looks."
)
@click.option("--times", type=click.IntRange(1), help="End after so many looks.")
@as_json
def command(
    *, limit: int, name: str, every: float, times: int | None, json_output: bool, **overrides: str | None
) -> None:
    """Show what `liveness status` shows, again and again.

    Until it is interrupted. As JSON, it is one object a line.
    """
    settings = settings_for(**overrides)
    screen = Screen(console_for(), json_output=json_output)
    with screen.live:
        asyncio.run(watch(settings, asked(0, limit, name, RECENT_SHOWN), screen, every=every, times=times))


class Screen:
    """Where it is shown: in place on a terminal; elsewhere one after another."""

    def __init__(self, console: Console, *, json_output: bool) -> None:
        self._console = console
        self._json = json_output
        self._terminal = console.is_terminal and not json_output
        self._last: RenderableType = literal("nothing was heard of the service yet")
        self.live = Live(console=console, screen=self._terminal, auto_refresh=False)

    def show(self, answer: StatusAnswer) -> None:
        """Show how it is."""
        self._last = shown(answer)
        self._put(self._last, msgspec.to_builtins(answer))

    def trouble(self, says: str) -> None:
        """Show that nobody knows, above what was known last."""
        line = literal(f"not live: {says}")
        self._put(Group(line, self._last) if self._terminal else line, {"error": says})

    def _put(self, what: RenderableType, data: object) -> None:
        if self._json:
            # Nothing in it is more than ASCII, and so nothing that a terminal would obey.
            click.echo(json.dumps(data))
        elif self._terminal:
            self.live.update(what, refresh=True)
        else:
            self._console.print(what, highlight=False)


async def watch(settings: Settings, request: StatusRequest, screen: Screen, *, every: float, times: int | None) -> None:
    """Look every so many seconds, so many times (None: for ever). Raises RefusedError."""
    looks = 0
    while times is None or looks < times:
        if looks:
            await asyncio.sleep(every)
        looks += 1
        try:
            screen.show(await ask(settings, "status", request, StatusAnswer, READ_SECONDS))
        except (NatsAwayError, NoServiceError) as error:
            screen.trouble(str(error))
