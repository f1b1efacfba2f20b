"""The command: `python -m tests.fuzz --frames 1000000 --seed 1`."""

import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

import click
import msgspec

from liveness import logs
from liveness.embedded import NatsServer, PostgresServer
from liveness.settings import load
from liveness.store import Database, migrate
from tests.fuzz.stage import WORKERS, Report, perform


@click.command()
@click.option("--frames", default=1_000_000, show_default=True, help="Hostile frames that the server has to confirm.")
@click.option("--seed", type=int, help="Of the frames; random, and printed, unless given.")
@click.option("--workers", default=WORKERS, show_default=True, help="Workers that beat meanwhile.")
@click.option("--flood", is_flag=True, help="As fast as the server takes them, not waiting for the service.")
def main(*, frames: int, seed: int | None, workers: int, flood: bool) -> None:
    """Send hostile frames to a service of its own, and say what came of it; fails when something should not be."""
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    click.echo(f"seed {seed}")
    logs.configure("json", "critical")
    with tempfile.TemporaryDirectory(prefix="liveness-fuzz-") as folder:
        report = asyncio.run(_run(Path(folder), frames, seed, workers, flood=flood))
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    for violation in report.violations:
        click.echo(f"VIOLATION: {violation}")
    click.echo(f"{len(report.violations)} violations")
    sys.exit(bool(report.violations))


async def _run(folder: Path, frames: int, seed: int, workers: int, *, flood: bool) -> Report:
    nats, postgres = NatsServer(folder / "nats"), PostgresServer(folder / "postgres")
    try:
        await nats.start()
        await postgres.start()
        database = Database(postgres.dsn)
        await database.connect()
        await migrate(database, "public", host_tables=True)
        await database.close()
        settings, _ = load({}, nats_url=nats.url, postgres_dsn=postgres.dsn, http_listen="127.0.0.1:0")
        return await perform(settings, frames, seed, workers, flood=flood)
    finally:
        await nats.stop()
        await postgres.stop()


if __name__ == "__main__":
    main()
