"""Workers of other job queues, which beat into Postgres: `python -m tests.benchmarks.queues NAME DSN WORKERS`.

NAME is `procrastinate` (a row for each worker) or `pgqueuer` (a row for each piece of work that is held). The WORKERS
share a process, each with all that its own process would have; each holds a piece of work. They beat every
`BEAT_SECONDS`. Says {"beating": true} once all of them do, and for each line on its standard input {"heartbeats"}: how
many there were until then. They end with their input.
"""

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import asyncpg

from tests.benchmarks.child import say

BEAT_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.1

_counts: Counter[str] = Counter()


def _counted(write: Any, beats: Callable[..., int]) -> Any:
    """Return the method that writes heartbeats down, counting them; `beats` says how many, given its argument."""

    async def counted(peer: Any, what: Any) -> None:
        _counts["heartbeats"] += beats(what)
        await write(peer, what)

    return counted


async def procrastinate(dsn: str, workers: int) -> list[asyncio.Task[None]]:
    """Run workers of procrastinate: its defaults, but for how often they beat."""
    import procrastinate as peer  # noqa: PLC0415 - the other one does without
    from procrastinate.manager import JobManager  # noqa: PLC0415 - likewise

    beating: Any = JobManager
    beating.update_heartbeat = _counted(beating.update_heartbeat, lambda _worker: 1)
    app = peer.App(
        connector=peer.PsycopgConnector(
            conninfo=dsn, kwargs={"application_name": "procrastinate"}, max_size=workers + 4
        )
    )
    # It is closed with the process.
    await app.open_async()
    await app.schema_manager.apply_schema_async()

    async def work(number: int) -> None:
        queue = f"queue-{number}"

        @app.task(name=queue, queue=queue)
        async def hold() -> None:
            await asyncio.Event().wait()

        await hold.defer_async()
        await app.run_worker_async(
            queues=[queue], update_heartbeat_interval=BEAT_SECONDS, install_signal_handlers=False
        )

    return [asyncio.create_task(work(number)) for number in range(workers)]


async def pgqueuer(dsn: str, workers: int) -> list[asyncio.Task[None]]:
    """Run workers of PgQueuer: its defaults, but for the timeout, twice in which it beats."""
    from pgqueuer import PgQueuer, Queries  # noqa: PLC0415 - the other one does without
    from pgqueuer.core.buffers import HeartbeatBuffer  # noqa: PLC0415 - likewise

    beating: Any = HeartbeatBuffer
    beating.flush_items = _counted(beating.flush_items, len)

    def connect() -> Any:
        return asyncpg.connect(dsn, server_settings={"application_name": "pgqueuer"})

    await Queries.from_asyncpg_connection(await connect()).install()

    async def work(number: int) -> None:
        worker = PgQueuer.from_asyncpg_connection(await connect())

        # A name of its own, so that no worker takes another's.
        @worker.entrypoint(f"work-{number}")
        async def hold(_job: Any) -> None:
            await asyncio.Event().wait()

        await worker.qm.queries.enqueue(f"work-{number}", None)
        await worker.run(heartbeat_timeout=timedelta(seconds=2 * BEAT_SECONDS))

    return [asyncio.create_task(work(number)) for number in range(workers)]


_HELD: Final = {
    "procrastinate": "SELECT count(*) FROM procrastinate_jobs WHERE status = 'doing'",
    "pgqueuer": "SELECT count(*) FROM pgqueuer WHERE status = 'picked'",
}


async def run(name: str, dsn: str, workers: int) -> None:
    """Run the workers until the input ends."""
    running = await {"procrastinate": procrastinate, "pgqueuer": pgqueuer}[name](dsn, workers)
    watching = await asyncpg.connect(dsn)
    while await watching.fetchval(_HELD[name]) < workers:
        # Nobody tells when the last has taken hold of its work.
        await asyncio.sleep(LOOK_SECONDS)
        for task in running:
            assert not task.done(), task
    say({"beating": True})
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        say({"heartbeats": _counts["heartbeats"]})


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    asyncio.run(run(sys.argv[1], sys.argv[2], int(sys.argv[3])))
