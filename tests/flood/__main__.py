"""The command: `python -m tests.flood --names 1000000`."""

import asyncio
import sys

import click
import msgspec

from tests.benchmarks import hosts, servers
from tests.flood.run import Report, Size, flood


@click.command()
@click.option("--names", default=1_000_000, show_default=True, help="Invented names, each heard once.")
@click.option("--rate", default=20_000, show_default=True, help="Of them a second.")
@click.option("--known", default=1_000, show_default=True, help="Workers in the registry, with work, that beat.")
@click.option("--ttl", default=10.0, show_default=True, help="Of everybody, in seconds.")
@click.option("--max-workers", default=100_000, show_default=True, help="As the service's setting.")
@click.option("--max-grants", default=100.0, show_default=True, help="As the service's setting.")
def main(*, names: int, rate: int, known: int, ttl: float, max_workers: int, max_grants: float) -> None:
    """Flood a service with invented names, and say what became of the known ones; fails when that is not well."""
    size = Size(names=names, rate=rate, known=known, ttl=ttl, max_workers=max_workers, max_grants=max_grants)
    report = asyncio.run(_run(size))
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    violations = report.violations(size)
    for violation in violations:
        click.echo(f"VIOLATION: {violation}")
    click.echo(f"{len(violations)} violations")
    sys.exit(bool(violations))


async def _run(size: Size) -> Report:
    async with servers.nats(jetstream=True) as nats, hosts.postgres(fsync="on") as postgres:
        return await flood(size, nats.url, await hosts.host(postgres, "flooded"))


if __name__ == "__main__":
    main()
