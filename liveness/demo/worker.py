"""A worker process of the demonstration: claims workflows, works on them, completes them.

What it does to the host's tables is what a workflow server would do for its workers: claim with SKIP LOCKED, and
complete only what it still owns.
"""

import argparse
import asyncio
import random
import signal

import asyncpg

from liveness import Heartbeater

# Who completed what: more than one row for a workflow would mean that it was done twice.
COMPLETIONS = """
    CREATE TABLE IF NOT EXISTS demo_completion (
        workflow_id uuid NOT NULL,
        worker text NOT NULL,
        completed_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
CLAIM = """
    UPDATE workflow_execution
    SET status = 'RUNNING', worker_id = $1, version = version + 1, updated_at = now()
    WHERE id = (
        SELECT id FROM workflow_execution
        WHERE status = 'PENDING' ORDER BY created_at, id LIMIT 1
        FOR UPDATE SKIP LOCKED
    )
    RETURNING id
"""
# Repeats status and owner: a worker that was given up completes nothing.
COMPLETE = """
    WITH completed AS (
        UPDATE workflow_execution
        SET status = 'COMPLETED', version = version + 1, updated_at = now()
        WHERE id = $1 AND status = 'RUNNING' AND worker_id = $2
        RETURNING id
    )
    INSERT INTO demo_completion (workflow_id, worker) SELECT id, $2 FROM completed
"""
# What one piece of work takes, in seconds: long enough that a kill meets one in the middle.
WORK_LEAST, WORK_MOST = 0.25, 0.75
IDLE_SECONDS = 0.1


async def work(name: str, nats_url: str, postgres_dsn: str, ttl: float) -> None:
    """Work until told to stop (SIGTERM)."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    connection = await asyncpg.connect(postgres_dsn)
    async with connection.transaction():
        # IF NOT EXISTS alone fails when two create the table at the same moment.
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('demo_completion'))")
        await connection.execute(COMPLETIONS)
    async with Heartbeater(nats_url, worker=name, ttl=ttl, interval=ttl / 5):
        while not stop.is_set():
            workflow = await connection.fetchval(CLAIM, name)
            if workflow is None:
                await asyncio.sleep(IDLE_SECONDS)
                continue
            await asyncio.sleep(random.uniform(WORK_LEAST, WORK_MOST))  # noqa: S311 - how long work takes
            await connection.execute(COMPLETE, workflow, name)
    await connection.close()


def main() -> None:
    """Run one worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--nats-url", required=True)
    parser.add_argument("--postgres-dsn", required=True)
    parser.add_argument("--ttl", type=float, required=True)
    arguments = parser.parse_args()
    asyncio.run(work(arguments.name, arguments.nats_url, arguments.postgres_dsn, arguments.ttl))


if __name__ == "__main__":
    main()
