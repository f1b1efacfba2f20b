"""Procrastinate's own workers on its own schema: jobs of the dead come back by our history, its workers finish them."""

import inspect
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import procrastinate
import pytest
from nats.aio.client import Client
from procrastinate.worker import Worker

from tests.conftest import HostTables

from .conftest import Liveness, Serve, StartJobWorker, all_of, eventually
from .recipes import SCHEMA, settings_file
from .told import of_type, outbox_is_empty, published

SYSTEM = "Procrastinate"
# Nothing of its own gives a job back but what the user makes of `get_stalled_jobs`, and this is the least age in it.
STALE_SECONDS = inspect.signature(Worker).parameters["stalled_worker_timeout"].default


class Queue:
    """What a program that defers jobs does, and looks at."""

    def __init__(self, app: procrastinate.App, host: HostTables) -> None:
        self._app = app
        self._host = host

    async def defer(self, name: str, queue: str | None = None, **options: Any) -> str:
        """Defer a job for the task of this name; return its id."""
        return str(await self._app.configure_task(name, queue=queue or name, **options).defer_async())

    async def abort(self, job: str) -> None:
        """Ask for the end of a job."""
        assert await self._app.job_manager.cancel_job_by_id_async(int(job), abort=True)

    async def states(self) -> dict[str, tuple[str, int]]:
        """Return status and attempts of each job."""
        rows = await self._host.connection.fetch("SELECT id::text, status::text, attempts FROM procrastinate_jobs")
        return {row["id"]: (row["status"], row["attempts"]) for row in rows}

    async def become(self, **states: str) -> None:
        """Wait until each of these jobs has this status; a name is an id behind a letter."""
        wanted = {name[1:]: status for name, status in states.items()}

        async def look() -> dict[str, str]:
            return {job: status for job, (status, _) in (await self.states()).items() if job in wanted}

        await eventually(look, lambda seen: seen == wanted)

    async def events(self, job: str) -> list[str]:
        """Return what Procrastinate's triggers have written down of a job."""
        rows = await self._host.connection.fetch(
            "SELECT type::text FROM procrastinate_events WHERE job_id = $1 ORDER BY id", int(job)
        )
        return [row["type"] for row in rows]


@pytest.fixture
async def queue(dsn: str, host: HostTables) -> AsyncIterator[Queue]:
    """Procrastinate's schema in the fresh database, as its package makes it."""
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=dsn))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        before = await host.connection.fetchval(SCHEMA)
        yield Queue(app, host)
        # Nobody has touched it.
        assert await host.connection.fetchval(SCHEMA) == before


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
    """They are back after a ttl, in their order; a living worker's long job and what was finished are left alone."""
    done = await queue.defer("quick")
    held = [await queue.defer("work"), await queue.defer("work", lock="one")]
    behind = await queue.defer("work", lock="one")
    await serve(config=settings_file(SYSTEM, tmp_path))
    dying, dead = await start_job_worker(SYSTEM, "hold", "quick", "work")
    for job in held:
        await dying.said(f"holds {job}")
    await queue.become(**{f"j{done}": "succeeded"})
    living, alive = await start_job_worker(SYSTEM, "finish", "work", "long")
    long = await queue.defer("long")
    await living.said(f"holds {long}")

    killed = time.monotonic()
    await dying.kill()
    for job in [*held, behind]:
        await living.said(f"finished {job}")
    took = time.monotonic() - killed

    await queue.become(**{f"j{job}": "succeeded" for job in [*held, behind]})
    assert took < STALE_SECONDS
    assert await history(host) == [("job", job, dead) for job in held]
    # A crash counts as an attempt, and its end as another, as with Procrastinate's own retry.
    states = await queue.states()
    assert [states[job] for job in [done, *held, behind, long]] == [
        ("succeeded", 1),
        ("succeeded", 2),
        ("succeeded", 2),
        ("succeeded", 1),
        ("doing", 0),
    ]
    assert await queue.events(held[0]) == ["deferred", "started", "deferred_for_retry", "started", "succeeded"]
    # The lock has kept its order.
    assert living.lines.index(f"finished {held[1]}") < living.lines.index(f"holds {behind}")

    living.signal(signal.SIGUSR1)
    await living.said(f"finished {long}")
    await queue.become(**{f"j{long}": "succeeded"})
    await outbox_is_empty(host)
    told = of_type(await published(client), "job.reclaimed")
    assert sorted(event["data"]["job_id"] for event in told) == held
    assert {(event["data"]["former_worker"], event["data"]["reason"]) for event in told} == {(dead, "lapsed")}
    assert alive != dead


async def test_who_does_not_beat_on_nats_keeps_what_it_runs(
    serve: Serve, queue: Queue, host: HostTables, start_job_worker: StartJobWorker, tmp_path: Path
) -> None:
    """Its own heartbeat in its own table is enough; the jobs go back when that has stopped."""
    job = await queue.defer("work")
    silent, name = await start_job_worker(SYSTEM, "hold", "work", beats="silent")
    await silent.said(f"holds {job}")
    service = await serve(config=settings_file(SYSTEM, tmp_path))
    # Whoever Postgres knows of when the service starts is owed a ttl of listening, and is not heard in it.
    assert (await service.logged("lease_spared"))["worker"] == name
    assert await history(host) == []

    await silent.kill()

    await queue.become(**{f"j{job}": "todo"})
    assert await history(host) == [("job", job, name)]


async def test_what_the_table_refuses_waits_and_the_rest_goes_back(
    serve: Serve,
    liveness: Liveness,
    queue: Queue,
    host: HostTables,
    start_job_worker: StartJobWorker,
    tmp_path: Path,
) -> None:
    """A job whose queueing lock another one holds is told of, and goes back when that has run; an abort comes true."""
    config = settings_file(SYSTEM, tmp_path)
    twice = await queue.defer("work", queueing_lock="one")
    plain, unwanted = await queue.defer("work"), await queue.defer("work")
    service = await serve(config=config)
    stopped, name = await start_job_worker(SYSTEM, "hold", "work")
    for job in (twice, plain, unwanted):
        await stopped.said(f"holds {job}")
    other = await queue.defer("work", queue="elsewhere", queueing_lock="one")

    stopped.signal(signal.SIGSTOP)
    await queue.abort(unwanted)
    assert (await service.logged("row_refused"))["id"] == twice
    await queue.become(**{f"j{plain}": "todo", f"j{unwanted}": "aborted", f"j{twice}": "doing", f"j{other}": "todo"})
    assert await history(host) == [("job", plain, name), ("aborting_job", unwanted, name)]
    explained, status = await all_of(liveness("why", twice, config=config), liveness("status", config=config))
    assert "the table refuses to put it back" in explained.out
    assert "procrastinate_jobs_queueing_lock_idx_v1" in explained.out
    assert "refused: 1 row," in status.out

    finishing, _ = await start_job_worker(SYSTEM, "finish", "work", "elsewhere")
    await finishing.said(f"finished {plain}")
    await finishing.said(f"finished {other}")
    # It has waited as long as a row does that was refused.
    await host.connection.execute("UPDATE liveness.remainder SET retry_at = now()")
    await finishing.said(f"finished {twice}")
    await queue.become(**{f"j{twice}": "succeeded"})
    assert ("job", twice, name) in await history(host)

    # Who was given up and did not know it ends, and finishes nothing.
    stopped.signal(signal.SIGCONT)
    assert await stopped.end() == 1
    assert {job: status for job, (status, _) in (await queue.states()).items()} == {
        twice: "succeeded",
        plain: "succeeded",
        unwanted: "aborted",
        other: "succeeded",
    }
