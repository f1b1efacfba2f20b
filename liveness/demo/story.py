"""The story of the demonstration: enqueue, work, kill, lapse, reclaim, finish elsewhere; told as it happens."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime
from typing import Any

import asyncpg
import msgspec

from liveness.client import events
from liveness.demo.worker import COMPLETIONS
from liveness.errors import LivenessError
from liveness.eventdata import WorkflowReclaimed

WORKERS = ("worker-1", "worker-2", "worker-3")
WORKFLOWS = 24
# Short, so that the demonstration is; a real worker states some 10 s.
TTL = 2.0
# The whole takes about a third of this.
STORY_SECONDS = 28.0
LOOK_SECONDS = 0.02

ENQUEUE = "INSERT INTO workflow_execution (kind, queue) SELECT 'demo', 'default' FROM generate_series(1, $1)"
# A workflow that the victim has only just begun, once everybody has completed something.
JUST_CLAIMED = """
    SELECT array_agg(w.id::text) AS held, clock_timestamp() AS now
    FROM workflow_execution AS w
    WHERE w.status = 'RUNNING' AND w.worker_id = $1
        AND w.updated_at > clock_timestamp() - interval '0.15 seconds'
        AND (SELECT count(DISTINCT worker) FROM demo_completion) = $2
    GROUP BY w.worker_id
"""


class Times(msgspec.Struct):
    """When what happened to one workflow of the killed worker, by the database's clock."""

    workflow: str
    killed: datetime
    lapsed: datetime | None = None
    pending: datetime | None = None
    told: datetime | None = None
    completed: datetime | None = None
    completed_by: str | None = None


class DemoFailedError(LivenessError):
    """The demonstration did not end as it should; the text says how."""


class Story:
    """Tells one demonstration through `say`, on servers and a service that run already."""

    def __init__(self, nats_url: str, postgres_dsn: str, say: Callable[[str], None]) -> None:
        self._nats_url = nats_url
        self._dsn = postgres_dsn
        self._say = say
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._times: dict[str, Times] = {}
        self._killed = asyncio.Event()

    async def tell(self) -> list[Times]:
        """Tell it, and return the times of each workflow that the killed worker held.

        Raises DemoFailedError unless every workflow was completed exactly once.
        """
        connection = await asyncpg.connect(self._dsn)
        try:
            async with asyncio.timeout(STORY_SECONDS):
                await connection.execute(COMPLETIONS)
                await connection.execute(ENQUEUE, WORKFLOWS)
                self._say(f"{WORKFLOWS} workflows are PENDING")
                watching = asyncio.create_task(self._watch_events())
                try:
                    self._start_workers()
                    await self._kill_one(connection)
                    await self._wait_for_completion(connection)
                    await self._wait_for_events(watching)
                finally:
                    watching.cancel()
                    await asyncio.wait({watching})
            return await self._verdict(connection)
        except TimeoutError as error:
            raise DemoFailedError(f"not every workflow was completed within {STORY_SECONDS:g} s") from error
        finally:
            self._stop_workers()
            await connection.close()

    def _start_workers(self) -> None:
        for name in WORKERS:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own program
                [
                    sys.executable, "-m", "liveness.demo.worker", name, "--nats-url", self._nats_url,
                    "--postgres-dsn", self._dsn, "--ttl", str(TTL),
                ]
            )  # fmt: skip
        pids = ", ".join(str(process.pid) for process in self._processes.values())
        self._say(f"{', '.join(WORKERS)} start as processes {pids}; a heartbeat is good for {TTL:g} s")

    def _stop_workers(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    async def _kill_one(self, connection: Any) -> None:
        while True:
            row = await connection.fetchrow(JUST_CLAIMED, WORKERS[1], len(WORKERS))
            if row is not None:
                break
            self._check_processes()
            await asyncio.sleep(LOOK_SECONDS)
        victim = self._processes[WORKERS[1]]
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        self._times = {workflow: Times(workflow, row["now"]) for workflow in row["held"]}
        self._killed.set()
        self._say(f"SIGKILL for {WORKERS[1]} while it works on {', '.join(_short(id_) for id_ in row['held'])}")

    async def _watch_events(self) -> None:
        async with aclosing(events(self._nats_url, durable="demo")) as news:
            async for event in news:
                if isinstance(event.data, WorkflowReclaimed) and event.data.workflow_id in self._times:
                    self._times[event.data.workflow_id].told = datetime.now().astimezone()
                    self._say(
                        f"event {event.type}: {_short(event.data.workflow_id)} of {event.data.former_worker} is PENDING"
                        f" again ({event.data.reason})"
                    )
                elif event.type == "worker.expired":
                    self._say(f"event {event.type}: {event.subject} was silent for longer than its ttl")

    async def _wait_for_completion(self, connection: Any) -> None:
        told: set[str] = set()
        while True:
            rows = await connection.fetch("SELECT workflow_id::text AS id, worker, completed_at FROM demo_completion")
            for row in rows:
                times = self._times.get(row["id"])
                if times is not None and row["id"] not in told:
                    told.add(row["id"])
                    times.completed, times.completed_by = row["completed_at"], row["worker"]
                    self._say(f"{row['worker']} has completed {_short(row['id'])}")
            if len({row["id"] for row in rows}) == WORKFLOWS:
                self._say(f"all {WORKFLOWS} workflows are COMPLETED")
                return
            self._check_processes()
            await asyncio.sleep(LOOK_SECONDS)

    async def _wait_for_events(self, watching: "asyncio.Task[None]") -> None:
        while any(times.told is None for times in self._times.values()):
            if watching.done():
                watching.result()
            await asyncio.sleep(LOOK_SECONDS)

    def _check_processes(self) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None and not (self._killed.is_set() and name == WORKERS[1]):
                raise DemoFailedError(f"{name} ended by itself with exit code {process.returncode}")

    async def _verdict(self, connection: Any) -> list[Times]:
        for row in await connection.fetch(
            "SELECT r.id, r.reclaimed_at, x.lapsed_at FROM liveness.reclaim AS r"
            " JOIN liveness.expiration AS x USING (worker, epoch)"
        ):
            if row["id"] in self._times:
                self._times[row["id"]].lapsed, self._times[row["id"]].pending = row["lapsed_at"], row["reclaimed_at"]
        wrong = await connection.fetchval(
            "SELECT count(*) FROM workflow_execution AS w WHERE w.status <> 'COMPLETED'"
            " OR (SELECT count(*) FROM demo_completion AS c WHERE c.workflow_id = w.id) <> 1"
        )
        if wrong:
            raise DemoFailedError(f"{wrong} of {WORKFLOWS} workflows were not COMPLETED exactly once")
        missing = [times for times in self._times.values() if times.pending is None or times.completed is None]
        if missing or not self._times:
            raise DemoFailedError("the killed worker's workflow was not reclaimed and completed elsewhere")
        return list(self._times.values())


def _short(workflow: str) -> str:
    return workflow[:8]
