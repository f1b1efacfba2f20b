"""`liveness status`: what the running service believes."""

import asyncio

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from liveness.answers import PAGE, StatusAnswer, StatusRequest
from liveness.cli.asking import ask
from liveness.cli.options import as_json, print_json, servers, settings_for


@click.command("status")
@servers
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
    console = Console()
    if not console.is_terminal:
        # Not cut to the 80 columns that rich assumes of a pipe.
        console = Console(width=140)
    state = "; ".join(answer.troubles) or "ready"
    console.print(
        f"liveness {answer.version}, mode {answer.mode}, up {answer.uptime:.0f} s: {escape(state)}\n"
        f"{answer.leases} leases, {answer.wanting} waiting for an epoch, {answer.ending} for a verdict, "
        f"{'?' if answer.outbox is None else answer.outbox} events in the outbox",
        highlight=False,
    )
    if answer.workers:
        console.print(_table(answer))
    if len(answer.workers) < answer.leases:
        console.print(f"{len(answer.workers)} of {answer.leases} workers shown: see --limit and --offset")


def _table(answer: StatusAnswer) -> Table:
    table = Table("worker", "state", "remaining", "ttl", "last beat", "running", "epoch", "incarnation")
    for worker in answer.workers:
        table.add_row(
            escape(worker.worker),
            worker.state,
            f"{worker.remaining:.1f} s",
            f"{worker.ttl:g} s",
            "not yet" if worker.silent_for is None else f"{worker.silent_for:.1f} s ago",
            str(worker.running),
            "-" if worker.epoch is None else str(worker.epoch),
            escape(worker.incarnation or "-"),
        )
    return table
