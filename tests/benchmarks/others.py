"""The host's other transactions, a process of its own: `python -m tests.benchmarks.others DSN CONNECTIONS RATE`.

CONNECTIONS take turns of three small transactions, RATE a second in all: submit a piece of work, claim one, finish it,
with the statements of `docs/correctness.md`. It is work of a queue of its own, so no row of it is anybody else's.

Says {"ready": true}, and for each line on its standard input [[began, seconds], ...] of all that it did since the last
one: `began` is the machine's time. One that had to wait for the one before it counts from when it was due.
"""

import asyncio
import sys
import time
from typing import Final

import asyncpg

from tests.benchmarks.child import say

QUEUE: Final = "others"
SUBMIT: Final = "INSERT INTO workflow_execution (queue) VALUES ($1)"
CLAIM: Final = """
    UPDATE workflow_execution
    SET status = 'RUNNING', worker_id = $1, version = version + 1, updated_at = now()
    WHERE id = (SELECT id FROM workflow_execution WHERE status = 'PENDING' AND queue = $2
                ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
    RETURNING id, version
"""
FINISH: Final = """
    UPDATE workflow_execution
    SET status = 'COMPLETED', version = version + 1, updated_at = now()
    WHERE id = $1 AND status = 'RUNNING' AND worker_id = $2 AND version = $3
"""

Sample = tuple[float, float]


class Worker:
    """One connection that submits, claims and finishes in turn."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]", name: str) -> None:
        self._connection = connection
        self._name = name
        self._held: asyncpg.Record | None = None
        self._turn = 0

    async def act(self) -> None:
        """Carry out the next transaction."""
        self._turn += 1
        if self._turn % 3 == 1:
            await self._connection.execute(SUBMIT, QUEUE)
        elif self._turn % 3 == 2:
            self._held = await self._connection.fetchrow(CLAIM, self._name, QUEUE)
        elif self._held is not None:
            await self._connection.execute(FINISH, self._held["id"], self._name, self._held["version"])


async def keep(worker: Worker, first: float, period: float, samples: list[Sample]) -> None:
    """Act every `period` seconds from `first` on, for ever."""
    due = first
    while True:
        ahead = due - time.time()
        if ahead > 0:
            # The pace of a load; nothing is waited for.
            await asyncio.sleep(ahead)
        began = due if ahead <= 0 else time.time()
        await worker.act()
        samples.append((began, time.time() - began))
        due += period


async def work(dsn: str, connections: int, rate: float) -> None:
    """Work until the input ends, and say what was measured."""
    workers = [Worker(await asyncpg.connect(dsn), f"other-{place}") for place in range(connections)]
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    samples: list[Sample] = []
    period, now = connections / rate, time.time()
    async with asyncio.TaskGroup() as tasks:
        working = [
            tasks.create_task(keep(worker, now + place / rate, period, samples)) for place, worker in enumerate(workers)
        ]
        say({"ready": True})
        while await lines.readline():
            say(samples)
            samples.clear()
        for task in working:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
