"""Workers that can be killed, several in a process: `python -m tests.benchmarks.mortals FATES`.

FATES is a JSON object: `nats`, `ttl` and `workers` (names) of those under `Heartbeater`, and `columns`, a list of
{"dsn", "interval", "workers"} of those that write the time into their row of the host's registry. Of every kind each
begins at a moment of its own. Says {"beating": true} once all of them do, and beats until it is killed.
"""

import asyncio
import json
import random
import sys
from contextlib import AsyncExitStack
from typing import Any, Final

import asyncpg

from liveness.client import Heartbeater
from liveness.client.pace import BEATS_IN_A_TTL
from tests.benchmarks.child import say

BEAT: Final = "UPDATE worker SET last_heartbeat_at = now() WHERE worker_name = $1"


async def heartbeaters(stack: AsyncExitStack, url: str, ttl: float, workers: list[str]) -> None:
    """Beat on NATS, as a worker of ours does."""

    async def begin(worker: str) -> None:
        # So that those of one process do not beat in step.
        await asyncio.sleep(random.random() * ttl / BEATS_IN_A_TTL)
        await stack.enter_async_context(Heartbeater(url, worker=worker, ttl=ttl))

    async with asyncio.TaskGroup() as beginning:
        for worker in workers:
            beginning.create_task(begin(worker))


async def column(dsn: str, interval: float, workers: list[str]) -> asyncio.Task[None]:
    """Beat into the database; return once each has done so. A connection is enough for the workers of a process."""
    connection, lock = await asyncpg.connect(dsn), asyncio.Lock()

    async def beat(worker: str) -> None:
        async with lock:
            await connection.execute(BEAT, worker)

    async def beats(worker: str) -> None:
        # The pace of a heartbeat; so that those of one process do not beat in step.
        await asyncio.sleep(random.random() * interval)
        while True:
            await beat(worker)
            await asyncio.sleep(interval)

    async def all_of_them() -> None:
        await asyncio.gather(*map(beats, workers))

    for worker in workers:
        await beat(worker)
    return asyncio.create_task(all_of_them())


async def live(fates: dict[str, Any]) -> None:
    """Live until killed."""
    async with AsyncExitStack() as stack:
        columns = [await column(**one) for one in fates["columns"]]
        await heartbeaters(stack, fates["nats"], fates["ttl"], fates["workers"])
        say({"beating": True})
        # Only an error ends one of them.
        await asyncio.gather(asyncio.Event().wait(), *columns)


if __name__ == "__main__":
    asyncio.run(live(json.loads(sys.argv[1])))
