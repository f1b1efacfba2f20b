"""Start of a service with leases to restore: from the start of its process to the 200 of /readyz.

It is `liveness serve` as an orchestrator runs it, with a Postgres and a NATS of their own beside it on this machine.
The database is a host's: each worker has an epoch that is open, a row in the registry that is up, and one running
workflow, and Postgres has its statistics. There is no baseline: what is promised is the time. The note says how much of
it had passed at two lines of the log. Its memory is what the process has just then.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from liveness.embedded import Servers
from liveness.store import Database, migrate
from tests.benchmarks.figures import Measured, Outcome, Plan, Reach, Row
from tests.benchmarks.memory import resident

NUMBER: Final = 10
# How many leases, how often, and within how many seconds; None: nothing is promised.
SIZES: Final = ((0, 5, None), (100_000, 5, 2.0), (1_000_000, 3, 15.0))
QUICK_SIZES: Final = ((0, 1, None), (20_000, 2, 2.0))
# Only a hang meets it.
PATIENCE_SECONDS: Final = 120.0

# The workers from $1 to $2.
_NAMES: Final = "SELECT format('worker-5d8c7b9f6d-%s', n) AS name, n FROM generate_series($1::bigint, $2) AS n"
_FILL: Final = {
    "liveness.epoch (worker, epoch, incarnation, ttl, term)": "name, 1750000000000 + n, md5(name), 60, 1",
    "worker (worker_name)": "name",
    "workflow_execution (worker_id, status)": "name, 'RUNNING'",
}


class Run:
    """What one start took, in seconds, and its resident memory behind it, in MB."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.memory = 0.0


async def measure(plan: Plan) -> Outcome:
    """Start it again and again on one database, which grows."""
    rows, filled = [], 0
    async with Servers() as servers:
        database = Database(servers.postgres_dsn)
        await database.connect()
        await migrate(database, "public", host_tables=True)
        await database.close()
        for leases, times, limit in QUICK_SIZES if plan.quick else SIZES:
            await _fill(servers.postgres_dsn, filled, leases)
            filled = leases
            runs = []
            for _ in range(times):
                plan.say(f"a start with {leases:,} leases")
                runs.append(await _start(servers, leases))
            reach = None if limit is None else Reach(limit, alone=True)
            rows += _rows(leases, runs, reach)
    return Outcome(rows)


def _rows(leases: int, runs: list[Run], reach: Reach | None) -> list[Row]:
    taken = {line: Measured([run.seconds[line] for run in runs]) for line in runs[0].seconds}
    parts = ", ".join(f"{taken[line].median:.2f} s at '{line}'" for line in ("starting", "restored"))
    what = f"start with {leases:,} leases"
    memory = Measured([run.memory for run in runs])
    return [
        Row(number=NUMBER, what=what, ours=taken["ready"], unit="s", reach=reach, note=parts),
        Row(number=NUMBER, what=f"{what}: its memory", ours=memory, unit="MB"),
    ]


async def _fill(dsn: str, present: int, wanted: int) -> None:
    connection = await asyncpg.connect(dsn)
    for columns, values in _FILL.items():
        statement = f"INSERT INTO {columns} SELECT {values} FROM ({_NAMES}) AS w"  # noqa: S608 - both stand above
        await connection.execute(statement, present + 1, wanted)
    # As it would be found a while later.
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def _start(servers: Servers, leases: int) -> Run:
    run, began = Run(), time.monotonic()
    async with _service(servers) as process:
        port = 0
        while "serving" not in run.seconds:
            line = await _line(process)
            if line["event"] in {"starting", "restored", "serving"}:
                run.seconds[line["event"]] = time.monotonic() - began
            port = line.get("http_port", port)
        assert line["leases"] == leases
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await _is_ready(port):
                pass
        run.seconds["ready"] = time.monotonic() - began
        run.memory = resident(process.pid) / 1e6
    return run


@asynccontextmanager
async def _service(servers: Servers) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `liveness serve` on these servers while the body runs, and stop it in good order: its lead is free again."""
    settings = {"NATS_URL": servers.nats_url, "POSTGRES_DSN": servers.postgres_dsn, "HTTP_LISTEN": "127.0.0.1:0"}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("LIVENESS_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "liveness", "serve"),
        env=outside | {f"LIVENESS_{name}": value for name, value in settings.items()},
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_SECONDS):
            # What it still has to say must not fill the pipe.
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _line(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        line = await process.stderr.readline()
    assert line, "the service has ended"
    fields: dict[str, Any] = json.loads(line)
    return fields


async def _is_ready(port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return (await reader.read()).startswith(b"HTTP/1.1 200 ")
    finally:
        writer.close()
