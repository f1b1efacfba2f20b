"""PgQueuer's own workers on its own schema: jobs of the dead come back by our history, and its workers finish them."""

import inspect
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from nats.aio.client import Client
from pgqueuer import Queries, QueueManager

from tests.conftest import SOON, HostTables

from .conftest import Serve, StartJobWorker, eventually
from .recipes import SCHEMA, settings_file
from .told import of_type, outbox_is_empty, published

SYSTEM = "PgQueuer"
_RUN = inspect.signature(QueueManager.run).parameters
# When a worker of its own takes a job over, and when it looks at the queue that nothing has told it of (seconds).
STALE_SECONDS = _RUN["heartbeat_timeout"].default.total_seconds()
POLL_SECONDS = _RUN["dequeue_timeout"].default.total_seconds()


class Queue:
    """What a program that enqueues jobs does, and looks at."""

    def __init__(self, queries: Queries, host: HostTables) -> None:
        self._queries = queries
        self._host = host

    async def enqueue(self, name: str, dedupe_key: str | None = None) -> str:
        """Enqueue a job for the entrypoint of this name; return its id."""
        (job,) = await self._queries.enqueue(name, None, dedupe_key=dedupe_key)
        return str(job)

    async def states(self) -> dict[str, tuple[str, int, int | None]]:
        """Return status, attempts and slot of each job that is not over."""
        rows = await self._host.connection.fetch("SELECT id::text, status::text, attempts, slot FROM pgqueuer")
        return {row["id"]: (row["status"], row["attempts"], row["slot"]) for row in rows}

    async def log(self, job: str) -> list[str]:
        """Return what PgQueuer's log says of a job."""
        rows = await self._host.connection.fetch(
            "SELECT status::text FROM pgqueuer_log WHERE job_id = $1 ORDER BY id", int(job)
        )
        return [row["status"] for row in rows]

    async def ended(self, job: str) -> list[str]:
        """Wait until a job is not in the queue any more, and return what the log says of it."""
        await eventually(self.states, lambda states: job not in states)
        return await self.log(job)


@pytest.fixture
async def queue(dsn: str, host: HostTables) -> AsyncIterator[Queue]:
    """PgQueuer's schema in the fresh database, as its package makes it."""
    connection = await asyncpg.connect(dsn)
    queries = Queries.from_asyncpg_connection(connection)
    await queries.install()
    before = await host.connection.fetchval(SCHEMA)
    yield Queue(queries, host)
    # Nobody has touched it.
    assert await host.connection.fetchval(SCHEMA) == before
    await connection.close()


async def history(host: HostTables) -> list[tuple[str, str, str]]:
    """Return what went back: kind of work, id, former worker."""
    rows = await host.connection.fetch("SELECT work, id, worker FROM liveness.reclaim ORDER BY id::bigint")
    return [(row["work"], row["id"], row["worker"]) for row in rows]


async def test_jobs_of_a_killed_worker_are_finished_by_another(
    serve: Serve,
    queue: Queue,
    host: HostTables,
    client: Client,
    start_job_worker: StartJobWorker,
    tmp_path: Path,
) -> None:
    """They are back after a ttl, and taken at once; a living worker's long job and what was finished are left alone."""
    done = await queue.enqueue("quick")
    held = [await queue.enqueue("work"), await queue.enqueue("work", "key"), await queue.enqueue("work")]
    # Beyond the entrypoint's limit as long as those are held.
    behind = await queue.enqueue("work")
    await serve(config=settings_file(SYSTEM, tmp_path))
    dying, dead = await start_job_worker(SYSTEM, "hold", "quick", "work")
    for job in held:
        await dying.said(f"holds {job}")
    assert await queue.ended(done) == ["queued", "picked", "successful"]
    living, alive = await start_job_worker(SYSTEM, "finish", "work", "long")
    long = await queue.enqueue("long")
    await living.said(f"holds {long}")
    assert behind in await queue.states()

    killed = time.monotonic()
    await dying.kill()
    for job in [*held, behind]:
        await living.said(f"finished {job}")
    took = time.monotonic() - killed

    # Neither did it take them over itself, nor did it happen to look: its trigger has told it.
    assert took < min(SOON, STALE_SECONDS, POLL_SECONDS)
    assert await history(host) == [("job", job, dead) for job in held]
    for job in held:
        assert await queue.ended(job) == ["queued", "picked", "picked", "successful"]
    assert await queue.ended(behind) == ["queued", "picked", "successful"]
    assert await queue.states() == {long: ("picked", 0, None)}

    living.signal(signal.SIGUSR1)
    await living.said(f"finished {long}")
    assert await queue.ended(long) == ["queued", "picked", "successful"]
    await outbox_is_empty(host)
    told = of_type(await published(client), "job.reclaimed")
    assert sorted(event["data"]["job_id"] for event in told) == held
    assert {(event["data"]["former_worker"], event["data"]["reason"]) for event in told} == {(dead, "lapsed")}
    assert alive != dead


async def test_who_does_not_beat_on_nats_keeps_what_it_runs(
    serve: Serve, queue: Queue, host: HostTables, start_job_worker: StartJobWorker, tmp_path: Path
) -> None:
    """The job's own heartbeat is enough: it goes back when that has stopped, not because it was claimed long ago."""
    # Several of the job's own heartbeats, also where one comes late.
    await serve(config=settings_file(SYSTEM, tmp_path), workflow_stuck_timeout=3)
    silent, name = await start_job_worker(SYSTEM, "hold", "work", beats="silent")
    job = await queue.enqueue("work")
    await silent.said(f"holds {job}")
    # Twice as long as an orphan has to be untouched, and a few sweeps.
    await eventually(
        lambda: host.connection.fetchval("SELECT now() - updated > interval '6 seconds' FROM pgqueuer"), bool
    )
    assert await history(host) == []

    await silent.kill()

    await eventually(queue.states, lambda states: states == {job: ("queued", 0, None)})
    assert await history(host) == [("job", job, name)]
