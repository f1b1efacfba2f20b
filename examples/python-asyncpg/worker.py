"""A worker with asyncio and asyncpg: claims workflows of a queue, works on them, and says on NATS that it lives.

    pip install ../.. asyncpg
    DATABASE_URL=postgresql://127.0.0.1/flow python worker.py NAME

The beats share the event loop with the work: what would block it for longer than the ttl belongs into
`asyncio.to_thread`, or the whole worker under `liveness run`.
"""

import asyncio
import os
import signal
import sys

import asyncpg

import liveness

NATS_URL = os.environ.get("NATS_URL", "nats://127.0.0.1:4222")
QUEUE = os.environ.get("QUEUE", "default")
TTL = float(os.environ.get("TTL", "10"))
WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "1"))
IDLE_SECONDS = 0.5

CLAIM = """
    UPDATE workflow_execution
    SET status = 'RUNNING', worker_id = $1, version = version + 1, updated_at = now()
    WHERE id = (
        SELECT id FROM workflow_execution
        WHERE status = 'PENDING' AND queue = $2 ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING id, version
"""
# Only what is still its own, in the version that the claim returned: another may have it by now.
FINISH = """
    UPDATE workflow_execution
    SET status = 'COMPLETED', version = version + 1, updated_at = now()
    WHERE id = $1 AND status = 'RUNNING' AND worker_id = $2 AND version = $3
"""


async def main(name: str) -> None:
    """Work until SIGTERM. What is begun is finished first; what is held when the block ends goes back at once."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    stopping = asyncio.create_task(stop.wait())
    job: asyncio.Task[None] | None = None

    def on_lost() -> None:
        if job is not None:
            job.cancel()

    async with (
        asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=1, max_size=1) as database,
        liveness.Heartbeater(NATS_URL, worker=name, ttl=TTL, on_lost=on_lost) as heartbeater,
    ):

        async def carry_out(work: "asyncpg.Record") -> None:
            try:
                with heartbeater.holding(work["id"]):
                    # The claim may have taken so long that its time was up before there was a job to cancel.
                    heartbeater.check()
                    await asyncio.sleep(WORK_SECONDS)  # what you would do
                    # Before anything that cannot be undone: LostError, if its time is up.
                    heartbeater.check()
                    done = await database.execute(FINISH, work["id"], name, work["version"])
                    print(f"{name} has {'finished' if done == 'UPDATE 1' else 'lost'} {work['id']}", flush=True)
            except (asyncio.CancelledError, liveness.LostError):
                print(f"{name} was given up, and has dropped {work['id']}", flush=True)

        # Without a service it begins all the same, and is told its epoch later.
        await heartbeater.welcome(3)
        print(f"{name} lives in epoch {heartbeater.epoch}", flush=True)
        while not stopping.done():
            if heartbeater.lost.is_set():
                # Nothing is held. What was goes back, and the next life has an epoch of its own.
                again = asyncio.create_task(heartbeater.begin_again())
                await asyncio.wait({again, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if again.done():
                    again.result()
                continue
            # Nothing is claimed before NATS has taken a beat.
            work = await database.fetchrow(CLAIM, name, QUEUE) if heartbeater.remaining else None
            if work is None:
                await asyncio.wait({stopping}, timeout=IDLE_SECONDS)
                continue
            print(f"{name} has claimed {work['id']}", flush=True)
            job = asyncio.create_task(carry_out(work))
            await job


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python worker.py NAME")
    try:
        asyncio.run(main(sys.argv[1]))
    except liveness.LostError as error:
        # Another process bears the name.
        sys.exit(str(error))
