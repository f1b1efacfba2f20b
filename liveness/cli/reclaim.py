"""`liveness reclaim WORKER`: give the work of one worker back."""

import asyncio

import click

from liveness.answers import ReclaimAnswer, ReclaimRequest
from liveness.cli.alone import reclaim_alone
from liveness.cli.asking import ask
from liveness.cli.options import as_json, print_json, servers, settings_for, shard
from liveness.errors import NoServiceError
from liveness.figures import PIECES, counted
from liveness.logs import configure
from liveness.settings import Settings
from liveness.shown import printable


async def run(settings: Settings, request: ReclaimRequest) -> ReclaimAnswer:
    """Ask the running service; without one, do it here."""
    try:
        return await ask(settings, "reclaim", request, ReclaimAnswer)
    except NoServiceError:
        return await reclaim_alone(settings, request)


@click.command("reclaim")
@click.argument("worker")
@servers
@shard
@click.option("--dry-run", is_flag=True, help="Only say what would be taken.")
@click.option("--force", is_flag=True, help="Even if the worker lives.")
@as_json
def command(*, worker: str, dry_run: bool, force: bool, json_output: bool, **overrides: str | None) -> None:
    """Give the RUNNING work of WORKER back to the queue.

    Asks the running service. Without one, it first listens for the worker itself, unless forced. The work of a worker
    that lives is taken only with --force.
    """
    if not worker:
        raise click.BadParameter("a worker has a name", param_hint="WORKER")
    request = ReclaimRequest(worker=worker, dry_run=dry_run, force=force)
    settings = settings_for(**overrides)
    configure(settings.log_format, "warning")
    answer = asyncio.run(run(settings, request))
    if json_output:
        print_json(answer)
        return
    click.echo(printable(f"{answer.worker}: {answer.heard}; it holds {counted(answer.held, *PIECES)}"))
    if dry_run:
        click.echo("nothing was touched")
    else:
        click.echo(f"put {counted(answer.reclaimed, *PIECES)} back (epoch {answer.epoch})")
