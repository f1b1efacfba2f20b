"""`liveness status`: what the running service believes."""

import asyncio
from collections.abc import Sequence

import click
from rich.table import Table

from liveness.answers import PAGE, StatusAnswer, StatusRequest
from liveness.cli.asking import ask
from liveness.cli.options import as_json, print_json, servers, settings_for, shard
from liveness.cli.terminal import console_for, literal
from liveness.figures import counted
from liveness.shown import printable

# Names in a line about some workers; the rest is in --json.
NAMES_SHOWN = 10


@click.command("status")
@servers
@shard
@click.option("--limit", type=click.IntRange(0, PAGE), default=50, show_default=True, help="Workers at most.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Behind so many workers.")
@as_json
def command(*, limit: int, offset: int, json_output: bool, **overrides: str | None) -> None:
    """Show the service's state and its workers, those nearest to their end first."""
    request = StatusRequest(offset=offset, limit=limit)
    answer = asyncio.run(ask(settings_for(**overrides), "status", request, StatusAnswer))
    if json_output:
        print_json(answer)
        return
    console = console_for()
    for line in lines(answer):
        console.print(literal(line), highlight=False, soft_wrap=True)
    if answer.workers:
        console.print(_table(answer))
    if len(answer.workers) < answer.leases:
        console.print(f"{len(answer.workers)} of {answer.leases} workers shown: see --limit and --offset")


def lines(answer: StatusAnswer) -> list[str]:
    """Return what is said above the table: the state, the counts, and a line for whatever is out of the ordinary."""
    # A storm is a trouble, too, and has a line of its own below.
    troubles = "; ".join(trouble for trouble in answer.troubles if trouble not in answer.storms)
    state = troubles or ("storm" if answer.storms else "ready")
    acting = "" if answer.term is None else f", term {answer.term}"
    outbox = "? events" if answer.outbox is None else counted(answer.outbox, "event")
    counts = (
        f"{counted(answer.leases, 'lease')}, {answer.wanting} waiting for an epoch, {answer.ending} for a verdict, "
        f"{outbox} in the outbox"
    )
    said = [
        f"liveness {answer.version}, mode {answer.mode}{acting}, up {answer.uptime:.0f} s: {state}",
        *([f"{printable(str(answer.paused))}; {answer.ending} wait for that"] if answer.paused is not None else []),
        counts,
        *answer.storms,
    ]
    if answer.conflicts:
        said.append(
            f"conflict: two processes beat under one name, so nothing is taken from either: {_some(answer.conflicts)}"
        )
    if answer.suspects:
        said.append(f"suspect: may be dead, and loses nothing before its ttl: {_some(answer.suspects)}")
    if answer.wedged:
        said.append(f"wedged: beats, runs something and gets nothing done: {_some(answer.wedged)}")
    if answer.refused:
        said.append(
            f"refused: {counted(answer.refused, 'row')}, which their tables do not take back: see `liveness check`"
        )
    said += [f"bound hit: {line}" for line in answer.bounds]
    if not answer.hearing:
        said.append("deaf: nothing can be heard now, so no lease lapses")
    # The first gap is the start.
    if answer.gaps > 1:
        said.append(
            f"not heard: {answer.not_heard:.1f} s since the start, in {answer.gaps} gaps; they count against nobody"
        )
    return [printable(line) for line in said]


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _table(answer: StatusAnswer) -> Table:
    table = Table("worker", "state", "remaining", "ttl", "last beat", "running", "epoch", "incarnation")
    for worker in answer.workers:
        table.add_row(
            literal(worker.worker),
            worker.state,
            f"{worker.remaining:.1f} s",
            f"{worker.ttl:g} s",
            "not yet" if worker.silent_for is None else f"{worker.silent_for:.1f} s ago",
            str(worker.running),
            "-" if worker.epoch is None else str(worker.epoch),
            literal(worker.incarnation or "-"),
        )
    return table
