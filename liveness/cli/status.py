"""`liveness status`: what the running service believes."""

import asyncio
from collections.abc import Iterator

import click
from rich.console import Console, Group, RenderableType
from rich.table import Table

from liveness.answers import PAGE, StatusAnswer, StatusRequest
from liveness.cli.asking import READ_SECONDS, ask
from liveness.cli.options import as_json, print_json, servers, settings_for, shard
from liveness.cli.terminal import console_for, literal
from liveness.figures import counted
from liveness.overview import beaten, lines, recent

# Of the last ends, and of what was taken back last; the rest is in --json and on the page.
RECENT_SHOWN = 3


@click.command("status")
@servers
@shard
@click.option("--limit", type=click.IntRange(0, PAGE), default=50, show_default=True, help="Workers at most.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Behind so many workers.")
@click.option("--name", default="", help="Only workers with this in their names.")
@as_json
def command(*, limit: int, offset: int, name: str, json_output: bool, **overrides: str | None) -> None:
    """Show the service's state, its workers, and what ended last.

    Workers nearest to their end come first.
    """
    request = asked(offset, limit, name, 20 if json_output else RECENT_SHOWN)
    answer = asyncio.run(ask(settings_for(**overrides), "status", request, StatusAnswer, READ_SECONDS))
    if json_output:
        print_json(answer)
        return
    show(answer, console_for())


def asked(offset: int, limit: int, name: str, recent_most: int) -> StatusRequest:
    """Return the request for what the options say. Raises click.BadParameter."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise click.BadParameter("is not valid Unicode", param_hint="--name") from error
    return StatusRequest(offset=offset, limit=limit, name=name[:1024], recent=recent_most)


def show(answer: StatusAnswer, console: Console) -> None:
    """Print it."""
    for part in parts(answer):
        console.print(part, highlight=False, soft_wrap=not isinstance(part, Table))


def shown(answer: StatusAnswer) -> RenderableType:
    """Return the whole as one."""
    return Group(*parts(answer))


def parts(answer: StatusAnswer) -> Iterator[RenderableType]:
    """Go through the lines and the table."""
    for line in lines(answer):
        yield literal(line)
    if answer.workers:
        yield _table(answer)
    matching = answer.leases if answer.matching is None else answer.matching
    if len(answer.workers) < matching:
        yield literal(
            f"{len(answer.workers)} of {counted(matching, 'worker')} shown, those nearest to their end first: see"
            " --limit, --offset and --name"
        )
    for line in recent(answer, RECENT_SHOWN):
        yield literal(line)


def _table(answer: StatusAnswer) -> Table:
    table = Table("worker", "state", "remaining", "ttl", "last beat", "running", "epoch", "incarnation")
    for worker in answer.workers:
        table.add_row(
            literal(worker.worker),
            worker.state,
            f"{worker.remaining:.1f} s",
            f"{worker.ttl:g} s",
            beaten(worker),
            "?" if worker.running is None else str(worker.running),
            "-" if worker.epoch is None else str(worker.epoch),
            literal(worker.incarnation or "-"),
        )
    return table
