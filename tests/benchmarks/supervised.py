"""Workers under `liveness run` whose command is killed: from its death until whoever listens has been told.

Each is a process of its own, with a ttl of 60 s that nobody has to wait for. The commands are killed one after another,
each a moment after the one before was told. The service is as `liveness serve` runs it, with default settings; the time
runs from before the call that kills to `workflow.reclaimed` out of `liveness.client.events`, by the clock of one
process.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Final

from liveness.client import events
from liveness.eventdata import WorkflowReclaimed
from tests.benchmarks.child import child
from tests.benchmarks.hosts import connected, host, postgres
from tests.benchmarks.servers import nats

TTL: Final = 60.0
# What is started at once: each is a Python that begins.
TOGETHER: Final = 4
PATIENCE_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = (0.2, 0.4)
_COMMAND: Final = ("sh", "-c", "echo $$; exec sleep 600")
_REGISTER: Final = "INSERT INTO worker (worker_name) SELECT unnest($1::text[])"
_CLAIM: Final = """
    INSERT INTO workflow_execution (status, worker_id, queue)
    SELECT 'RUNNING', unnest($1::text[]), 'billing'
"""


async def deaths(workers: int) -> list[float]:
    """Kill the commands of so many workers; return the seconds after which each was told."""
    names = [f"supervised-{number}" for number in range(workers)]
    found = []
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(nats(jetstream=True))
        dsn = await host(await stack.enter_async_context(postgres()), "supervised")
        settings = json.dumps({"nats_url": bus.url, "postgres_dsn": dsn})
        service = await stack.enter_async_context(child("tests.benchmarks.serving", settings))
        await service.says()
        connection = await stack.enter_async_context(connected(dsn))
        await connection.execute(_REGISTER, names)
        commands: list[int] = []
        for start in range(0, workers, TOGETHER):
            running = (supervised(bus.url, name) for name in names[start : start + TOGETHER])
            commands += await asyncio.gather(*map(stack.enter_async_context, running))
        await connection.execute(_CLAIM, names)
        news = await stack.enter_async_context(
            aclosing(events(bus.url, durable="supervised", types=["workflow.reclaimed"]))
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            for name, command in zip(names, commands, strict=True):
                # The supervisor before has ended, too, and nothing is in step with anything.
                await asyncio.sleep(random.uniform(*PAUSE_SECONDS))
                killed = time.monotonic()
                os.kill(command, signal.SIGKILL)
                event = await anext(news)
                found.append(time.monotonic() - killed)
                assert isinstance(event.data, WorkflowReclaimed)
                assert (event.data.former_worker, event.data.reason) == (name, "died")
    return found


@asynccontextmanager
async def supervised(url: str, name: str) -> AsyncIterator[int]:
    """Run a command under `liveness run` while the body runs; yields its process id."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "liveness", "run", "--nats-url", url, "--worker", name, "--ttl", f"{TTL:g}", "--"),
        *_COMMAND,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline())
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
