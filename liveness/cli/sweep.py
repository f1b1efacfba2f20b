"""`liveness sweep`: look through the database now."""

import asyncio
from collections.abc import Iterator

import click

from liveness.answers import SweepRequest, Swept
from liveness.cli.alone import sweep_alone
from liveness.cli.asking import ask
from liveness.cli.options import as_json, print_json, servers, settings_for, shard
from liveness.errors import NoServiceError
from liveness.figures import PIECES, counted, seconds
from liveness.logs import configure
from liveness.settings import Settings
from liveness.shown import printable


async def run(settings: Settings, *, dry_run: bool) -> Swept:
    """Ask the running service; without one, do it here."""
    try:
        return await ask(settings, "sweep", SweepRequest(dry_run=dry_run), Swept)
    except NoServiceError:
        return await sweep_alone(settings, dry_run=dry_run)


@click.command("sweep")
@servers
@shard
@click.option("--dry-run", is_flag=True, help="Only say what would be taken.")
@as_json
def command(*, dry_run: bool, json_output: bool, **overrides: str | None) -> None:
    """Find dead work that memory never knew, now, and give it back.

    Asks the running service. Without one, it first listens for a full ttl itself, so that it takes nothing from a
    worker that lives.
    """
    settings = settings_for(**overrides)
    configure(settings.log_format, "warning")
    swept = asyncio.run(run(settings, dry_run=dry_run))
    if json_output:
        print_json(swept)
        return
    for line in lines(swept):
        click.echo(printable(line))


def lines(swept: Swept) -> Iterator[str]:
    """Go through what is to be said of it; how much it is comes last."""
    for title, names in (
        ("silent while listening", swept.lapsed),
        ("over, and waiting for the verdict", sorted(set(swept.ending) - set(swept.lapsed))),
        ("stale", swept.stale),
        ("owners of orphans", swept.orphaned),
        ("not listened for long enough yet", swept.too_early),
    ):
        if names:
            yield f"{title}: {', '.join(sorted(names))}"
    for name, why in swept.ambiguous.items():
        yield f"left alone: {name!r} ({why})"
    for name, why in swept.refused.items():
        yield f"refused by Postgres: {name!r} ({why})"
    for work, rows in swept.ownerless.items():
        if rows:
            yield f"left alone: {counted(rows, f'RUNNING {work} row')} without an owner"
    if swept.held is not None:
        yield f"held: {swept.held}"
    # Else a service that has just begun would seem to find nothing.
    early = len(set(swept.too_early))
    later = f"; for {counted(early, 'more', 'more')} ask again in {seconds(swept.listen)}" if early else ""
    if swept.dry_run:
        lives = len({*swept.lapsed, *swept.ending, *swept.stale, *swept.orphaned})
        yield f"would end {counted(lives, 'life', 'lives')}{later}; nothing was touched"
    else:
        yield f"ended {counted(swept.ended, 'life', 'lives')}, put {counted(swept.items, *PIECES)} back{later}"
