"""The command: `python -m tests.soak --minutes 10 --workers 100000 --rate 20000`."""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import asyncpg
import click
import msgspec

from liveness.answers import StatusAnswer, StatusRequest
from liveness.cli.asking import ask
from liveness.errors import LivenessError
from liveness.settings import Settings, load
from tests.benchmarks import hosts, servers
from tests.benchmarks.child import Child, child
from tests.benchmarks.memory import resident

# What the last minute may differ from the first.
FLAT: Final = 0.03
SAMPLE_SECONDS: Final = 2.0
MINUTE: Final = 60.0
# For what is measured is how it goes on, not how it begins: everybody has an epoch by then, and the buffers their size.
WARM_UP_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 120.0
_FILL: Final = """
    WITH up AS (INSERT INTO worker (worker_name) SELECT 'worker-' || n FROM generate_series(0, $1::integer - 1) AS n)
    INSERT INTO workflow_execution (worker_id, status)
    SELECT 'worker-' || n, 'RUNNING' FROM generate_series(0, $1::integer - 1) AS n
"""
_EXPIRED: Final = "SELECT count(*) FROM liveness.expiration"


class Sample(msgspec.Struct, frozen=True):
    """What there was at a moment: seconds since the first, bytes, and what the service says of itself."""

    at: float
    resident: int
    heartbeats: int
    gaps: int
    not_heard: float
    leases: int


class Report(msgspec.Struct, frozen=True):
    """What came of it. Memory in bytes: medians of the first and of the last minute."""

    minutes: float
    sent: int
    heard: int
    first: float
    last: float
    gaps: int
    not_heard: float
    expired: int

    @property
    def violations(self) -> list[str]:
        """What should not have been."""
        found = {
            f"memory went from {self.first / 1e6:.1f} to {self.last / 1e6:.1f} MB": abs(self.last / self.first - 1)
            > FLAT,
            f"{self.sent - self.heard} heartbeats were dropped": self.heard != self.sent,
            f"{self.gaps} gaps in hearing, {self.not_heard:.3f} s": self.gaps > 0,
            f"{self.expired} living workers were given up": self.expired > 0,
        }
        return [text for text, is_so in found.items() if is_so]


@click.command()
@click.option("--minutes", default=10.0, show_default=True, type=click.FloatRange(2.0), help="How long to measure.")
@click.option("--workers", default=100_000, show_default=True, help="Workers, each with a lease and a RUNNING row.")
@click.option("--rate", default=20_000, show_default=True, help="Heartbeats a second of all of them.")
def main(*, minutes: float, workers: int, rate: int) -> None:
    """Let workers beat at a service, and say whether it stays as it is; fails when it does not."""
    report = asyncio.run(_run(minutes, workers, rate))
    click.echo(msgspec.json.format(msgspec.json.encode(report)).decode())
    for violation in report.violations:
        click.echo(f"VIOLATION: {violation}")
    click.echo(f"{len(report.violations)} violations")
    sys.exit(bool(report.violations))


async def _run(minutes: float, workers: int, rate: int) -> Report:
    async with servers.nats(jetstream=True) as nats, hosts.postgres(fsync="on") as postgres:
        dsn = await hosts.host(postgres, "soak")
        settings, _ = load({}, nats_url=nats.url, postgres_dsn=dsn)
        async with hosts.connected(dsn) as connection, _serving(settings) as service:
            await connection.execute(_FILL, workers)
            await connection.execute("VACUUM (ANALYZE)")
            beats = round(rate * (WARM_UP_SECONDS + minutes * MINUTE))
            async with child("tests.benchmarks.load", servers.port_of(nats.url), workers, rate, beats, "full") as crowd:
                await crowd.says()
                return await _watch(settings, service, connection, crowd, minutes, workers)


async def _watch(
    settings: Settings,
    service: asyncio.subprocess.Process,
    connection: "asyncpg.Connection[asyncpg.Record]",
    crowd: Child,
    minutes: float,
    workers: int,
) -> Report:
    began = time.monotonic()
    await asyncio.sleep(WARM_UP_SECONDS)
    before = await _sample(settings, service, began)
    if before.leases != workers:
        raise LivenessError(f"after {WARM_UP_SECONDS:g} s there are {before.leases} leases of {workers}")
    samples: list[Sample] = []
    sending = asyncio.create_task(crowd.says(minutes * MINUTE + PATIENCE_SECONDS))
    while not sending.done():
        samples.append(await _sample(settings, service, began))
        if len(samples) % (MINUTE // SAMPLE_SECONDS) == 1:
            _tell(samples[-1])
        await asyncio.wait({sending}, timeout=SAMPLE_SECONDS)
    sent = sending.result()["sent"]
    # What was sent is on its way for a moment; what was dropped never comes.
    end = await _sample(settings, service, began)
    while end.heartbeats < sent and time.monotonic() < began + minutes * MINUTE + PATIENCE_SECONDS:
        await asyncio.sleep(SAMPLE_SECONDS)
        end = await _sample(settings, service, began)
    return Report(
        minutes=minutes,
        sent=sent,
        heard=end.heartbeats,
        first=_median([one for one in samples if one.at <= samples[0].at + MINUTE]),
        last=_median([one for one in samples if one.at >= samples[-1].at - MINUTE]),
        gaps=end.gaps - before.gaps,
        not_heard=end.not_heard - before.not_heard,
        expired=await connection.fetchval(_EXPIRED),
    )


@asynccontextmanager
async def _serving(settings: Settings) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `liveness serve` while the body runs; what it logs is kept in a file until then."""
    given = {"NATS_URL": settings.nats_url, "POSTGRES_DSN": settings.postgres_dsn, "HTTP_LISTEN": "127.0.0.1:0"}
    environment = os.environ | {f"LIVENESS_{name}": value for name, value in given.items()}
    with tempfile.TemporaryFile("w+") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "liveness", "serve", env=environment, stderr=log, stdout=log
        )
        try:
            await _until_it_answers(settings, process, Path(f"/proc/self/fd/{log.fileno()}"))
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _until_it_answers(settings: Settings, process: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if process.returncode is not None:
                raise LivenessError(f"the service has ended: {_last_words(log)}")
            try:
                await _status(settings)
            except LivenessError:
                await asyncio.sleep(SAMPLE_SECONDS / 10)
            else:
                return


def _last_words(log: Path) -> str:
    return log.read_text()[-2_000:]


async def _status(settings: Settings) -> StatusAnswer:
    return await ask(settings, "status", StatusRequest(limit=0), StatusAnswer)


async def _sample(settings: Settings, service: asyncio.subprocess.Process, began: float) -> Sample:
    status = await _status(settings)
    return Sample(
        at=time.monotonic() - began,
        resident=resident(service.pid),
        heartbeats=status.counts.get("heartbeats", 0),
        gaps=status.gaps,
        not_heard=status.not_heard,
        leases=status.leases,
    )


def _tell(sample: Sample) -> None:
    said = msgspec.to_builtins(sample) | {"at": round(sample.at), "resident": f"{sample.resident / 1e6:.1f} MB"}
    click.echo(json.dumps(said), err=True)


def _median(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.resident for sample in samples)


if __name__ == "__main__":
    main()
