"""A tiny real worker, a process of its own: it beats, claims work of one kind, and completes it or holds it for ever.

Says on standard output what it does, a line each: `beating`, `claimed ID`, `completed ID`. Ends in good order on
SIGTERM. What it does to the tables is what a workflow server would do for its workers.
"""

import asyncio
import contextlib
import signal
import sys

import asyncpg

from liveness import Heartbeater

TTL = 1.0
IDLE_SECONDS = 0.05

CLAIM = {
    "workflow": """
        UPDATE workflow_execution SET status = 'RUNNING', worker_id = $1, version = version + 1, updated_at = now()
        WHERE id = (
            SELECT id FROM workflow_execution WHERE status = 'PENDING' AND queue = 'billing'
            ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        RETURNING id::text
    """,
    "task": """
        UPDATE task_execution
        SET status = 'RUNNING', worker_id = $1, execution_count = execution_count + 1, updated_at = now()
        WHERE id = (
            SELECT id FROM task_execution WHERE status = 'PENDING' AND queue = 'mail'
            ORDER BY created_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
        )
        RETURNING id::text
    """,
}
# Repeats status and owner: a worker that was given up completes nothing.
COMPLETE = {
    "workflow": """
        UPDATE workflow_execution SET status = 'COMPLETED', version = version + 1, updated_at = now()
        WHERE id = $1::uuid AND status = 'RUNNING' AND worker_id = $2 RETURNING id::text
    """,
    "task": """
        UPDATE task_execution SET status = 'COMPLETED', updated_at = now()
        WHERE id = $1::uuid AND status = 'RUNNING' AND worker_id = $2 RETURNING id::text
    """,
}


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def work(name: str, mode: str, kind: str, nats_url: str, postgres_dsn: str) -> None:
    """Work until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute("INSERT INTO worker (worker_name) VALUES ($1)", name)
    async with Heartbeater(nats_url, worker=name, ttl=TTL, interval=TTL / 5):
        say("beating")
        while not stop.is_set():
            item = await connection.fetchval(CLAIM[kind], name)
            if item is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), IDLE_SECONDS)
                continue
            say(f"claimed {item}")
            if mode == "stuck":
                await stop.wait()
            elif await connection.fetchval(COMPLETE[kind], item, name) is not None:
                say(f"completed {item}")
    await connection.close()


if __name__ == "__main__":
    asyncio.run(work(*sys.argv[1:]))
