"""`liveness demo`: the main job, on embedded servers, in half a minute."""

import asyncio
import sys
import time
from datetime import datetime

import click
from rich.console import Console
from rich.table import Table

from liveness.cli.migrate import run as migrate
from liveness.cli.options import settings_for
from liveness.demo.story import TTL, WORKFLOWS, Story, Times
from liveness.embedded import Servers
from liveness.logs import configure
from liveness.service import Service


async def run(console: Console) -> list[Times]:
    """Start everything, tell the story, stop everything."""
    began = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.2f} s[/dim]  {line}", highlight=False)

    say("starting a nats-server and a Postgres in a temporary folder")
    async with Servers() as servers:
        settings = settings_for(
            nats_url=servers.nats_url,
            postgres_dsn=servers.postgres_dsn,
            http_listen="127.0.0.1:0",
            register_unknown_workers=True,
        )
        # The story is told by `say`; only what goes wrong is worth a line of the log.
        configure("console", "error")
        await migrate(settings, host_tables=True)
        service, stop = Service(settings), asyncio.Event()
        serving = asyncio.create_task(service.run(stop))
        started = asyncio.create_task(service.started.wait())
        await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            started.cancel()
            serving.result()
        say("the liveness service listens for heartbeats")
        try:
            return await Story(servers.nats_url, servers.postgres_dsn, say).tell()
        finally:
            stop.set()
            await serving


def _table(times: list[Times]) -> Table:
    table = Table("after the kill", *(one.workflow[:8] for one in times), title="From SIGKILL to completed elsewhere")
    for title, field in (
        (f"its lease lapsed (ttl {TTL:g} s)", "lapsed"),
        ("its work was PENDING", "pending"),
        ("workflow.reclaimed was received", "told"),
        ("another worker had completed it", "completed"),
    ):
        table.add_row(title, *(_after(one.killed, getattr(one, field)) for one in times))
    table.add_row("completed by", *(one.completed_by or "-" for one in times))
    return table


def _after(killed: datetime, moment: datetime | None) -> str:
    return "-" if moment is None else f"{(moment - killed).total_seconds():.3f} s"


@click.command("demo")
def command() -> None:
    """Kill a worker in mid-work and see its workflow completed by another one.

    Starts a real nats-server and a real Postgres in a temporary folder, the service, and three worker processes; needs
    nothing else, leaves nothing behind. Exits 0 only if every workflow was completed exactly once.
    """
    console = Console()
    if not console.is_terminal:
        # Not broken at the 80 columns that rich assumes of a pipe.
        console = Console(width=120)
    times = asyncio.run(run(console))
    console.print(_table(times))
    console.print(f"All {WORKFLOWS} workflows were completed exactly once.", highlight=False)
    sys.stdout.flush()
