"""A worker of a job system, a process of its own: `python -m tests.acceptance.job_worker` and six arguments.

SYSTEM: `Procrastinate` or `PgQueuer`, whose own worker it runs, with the defaults of its timers, and with what
docs/tables.md adds. NATS and DSN: where the servers are. MODE: what it does with a job that is called `work`, `hold` it
for ever or `finish` it; it finishes a `quick` one at once, and a `long` one on SIGUSR1. BEATS: `beats` on NATS as the
page says, or `silent`, where nobody told it to. QUEUES: the names of the jobs that it takes, by commas.

Says on standard output what it does, a line each: `worker NAME` once it takes jobs, `holds ID`, `finished ID`.
"""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

from tests.acceptance.recipes import code

TTL = 1.0
NAMES = ("quick", "work", "long")
# How long it takes procrastinate to find a job that went back; its default is 5 s.
POLL_SECONDS = 0.2
# How often they beat into Postgres where they do not beat on NATS: sooner than a service of these tests loses patience.
# PgQueuer beats in half of its timeout.
SILENT_BEAT_SECONDS = 0.3
SILENT_TIMEOUT = timedelta(seconds=2 * SILENT_BEAT_SECONDS)

Job = Callable[[str, object], Awaitable[None]]


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def jobs(mode: str) -> Job:
    """Return what does a job, given its name and its id."""
    let_go = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, let_go.set)

    async def do(name: str, number: object) -> None:
        say(f"holds {number}")
        if name == "long":
            await let_go.wait()
        elif name == "work" and mode == "hold":
            await asyncio.Event().wait()
        say(f"finished {number}")

    return do


async def procrastinate(dsn: str, nats_url: str, do: Job, names: list[str], *, beats: bool) -> None:
    """Run procrastinate's worker: a queue for each name."""
    import procrastinate as peer  # noqa: PLC0415 - the other one does without

    app = peer.App(connector=peer.PsycopgConnector(conninfo=dsn))
    manager: Any = app.job_manager
    if beats:
        manager = code("Procrastinate")["BeatingJobs"](app.connector, nats_url, ttl=TTL)
        app.job_manager = manager
    register = manager.register_worker

    async def told() -> Any:
        number = await register()
        say(f"worker {number}")
        return number

    manager.register_worker = told

    def add(name: str) -> None:
        @app.task(name=name, queue=name, pass_context=True)
        async def task(context: peer.JobContext) -> None:
            await do(name, context.job.id)

    for name in NAMES:
        add(name)
    async with app.open_async():
        options: Any = {} if beats else {"update_heartbeat_interval": SILENT_BEAT_SECONDS}
        await app.run_worker_async(queues=names, concurrency=10, fetch_job_polling_interval=POLL_SECONDS, **options)


async def pgqueuer(dsn: str, nats_url: str, do: Job, names: list[str], *, beats: bool) -> None:
    """Run PgQueuer's worker: an entrypoint for each name, of which `work` is limited."""
    import asyncpg  # noqa: PLC0415 - the other one does without
    from pgqueuer import PgQueuer  # noqa: PLC0415 - likewise

    worker = PgQueuer.from_asyncpg_connection(await asyncpg.connect(dsn))

    def add(name: str) -> None:
        @worker.entrypoint(name, concurrency_limit=3 if name == "work" else 0)
        async def entrypoint(job: Any) -> None:
            await do(name, job.id)

    for name in names:
        add(name)
    say(f"worker {worker.qm.queue_manager_id}")
    if beats:
        await code("PgQueuer")["run"](worker, nats_url, ttl=TTL)
    else:
        await worker.run(heartbeat_timeout=SILENT_TIMEOUT)


async def run(system: str, nats_url: str, dsn: str, mode: str, beats: str, queues: str) -> None:
    """Work until killed."""
    worker = {"Procrastinate": procrastinate, "PgQueuer": pgqueuer}[system]
    await worker(dsn, nats_url, jobs(mode), queues.split(","), beats=beats == "beats")


if __name__ == "__main__":
    asyncio.run(run(*sys.argv[1:]))
