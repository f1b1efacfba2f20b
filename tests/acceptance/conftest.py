"""Real processes on real servers: the service, its commands and its workers, as an operator would start them."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import asyncpg
import pytest
from nats import connect as connect_to_nats
from nats.aio.client import Client

from liveness.embedded import NatsServer
from tests.conftest import SOON, delivered, look_again
from tests.integration.beats import Spy, spying

# What `liveness serve` promises about its end.
STOP_SECONDS = 5.0
WORKER = Path(__file__).with_name("worker_process.py")

# Everything about as short as the settings allow.
QUICK: Mapping[str, object] = {
    "heartbeat_timeout": 1,
    "workflow_stuck_timeout": 1,
    "stale_worker_check_interval": 0.3,
    "checkpoint_interval": 0.3,
    "http_listen": "127.0.0.1:0",
}

Seen = TypeVar("Seen")


async def eventually(look: Callable[[], Awaitable[Seen]], wanted: Callable[[Seen], bool]) -> Seen:
    """Look at the real thing until it is as wanted, and return it; fail with what was seen last."""
    seen: object = "nothing"
    try:
        async with asyncio.timeout(SOON) as patience:
            while True:
                seen = found = await look()
                if wanted(found):
                    return found
                # Nothing tells a test that another process has changed a row or listens on a port.
                await look_again()
    except TimeoutError as error:
        # The look may have lost its own patience, which is another failure.
        if not patience.expired():
            raise
        raise AssertionError(f"it did not come about within {SOON:g} s; seen last: {seen!r}") from error


class Ran(NamedTuple):
    """What became of a command."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        """The one JSON object that it printed."""
        return json.loads(self.out)

    @property
    def complaint(self) -> str:
        """The one line that it complained in, which is no log line; fails for none, several or a traceback."""
        logged = [line for line in self.err.splitlines() if line.startswith("{")]
        others = [line for line in self.err.splitlines() if not line.startswith("{")]
        assert len(others) == 1, self.err
        assert not any("exception" in json.loads(line) for line in logged), self.err
        return others[0]


class Child:
    """A process whose output, both streams together, is read line by line as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.lines: list[str] = []
        self.process = process
        self._news = asyncio.Condition()
        self._silent = False
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._news:
                self.lines.append(line.decode().rstrip("\n"))
                self._news.notify_all()
        async with self._news:
            self._silent = True
            self._news.notify_all()

    async def line(self, wanted: Callable[[str], bool]) -> str:
        """Wait for the first line that is as wanted."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOON), self._news:
                await self._news.wait_for(lambda: self._silent or any(map(wanted, self.lines)))
        found = next(filter(wanted, self.lines), None)
        assert found is not None, "no such line:\n" + "\n".join(self.lines)
        return found

    async def said(self, words: str) -> str:
        """Wait for a line that begins with `words`, and return what follows them."""
        return (await self.line(lambda line: line.startswith(words)))[len(words) :].strip()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def end(self, seconds: float = SOON) -> int:
        """Wait for the process's end and that of its output, and return its exit code."""
        async with asyncio.timeout(seconds):
            code = await self.process.wait()
        async with asyncio.timeout(SOON):
            await self._reading
        return code

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.end()


class Service(Child):
    """A `liveness serve`."""

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for a line of the log and return its fields."""

        def is_it(line: str) -> bool:
            return line.startswith("{") and json.loads(line)["event"] == event

        fields: dict[str, Any] = json.loads(await self.line(is_it))
        return fields

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Return status and body of an HTTP answer, or of a stream its first event; 0 and why while nobody listens."""
        port = (await self.logged("starting"))["http_port"]
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:
            return 0, str(error)
        try:
            said = {"host": "localhost", "connection": "close", **headers}
            lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
            writer.write(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            body = await (reader.readuntil(b"\n\n") if "text/event-stream" in head else reader.read())
        finally:
            writer.close()
            await writer.wait_closed()
        return int(head.split()[1]), body.decode()

    async def ready(self) -> None:
        """Wait until it says that it is ready. Nobody asks before it serves: its start would take longer."""
        await self.logged("serving")
        await eventually(lambda: self.get("/readyz"), lambda answer: answer == (200, "ready\n"))

    async def stop(self) -> None:
        """Stop it as an orchestrator would, and hold it to its promise."""
        self.signal(signal.SIGTERM)
        assert await self.end(STOP_SECONDS) == 0


async def _start(command: Sequence[str | Path], environment: Mapping[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        env=os.environ | dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # For log lines that hold a traceback.
        limit=2**20,
    )


class Liveness(Protocol):
    """Run a command of liveness with settings of one's own, and return what became of it."""

    def __call__(self, *arguments: str, **settings: object) -> Coroutine[Any, Any, Ran]:
        """Run `liveness ARGUMENTS` to its end."""


class Serve(Protocol):
    """Start a service with settings of one's own."""

    async def __call__(self, *, wait: bool = True, **settings: object) -> Service:
        """Start `liveness serve`, and wait until it is ready unless told otherwise."""


class StartWorker(Protocol):
    """Start a worker process."""

    async def __call__(self, name: str, mode: str, work: str = "workflow") -> Child:
        """Start it in the mode `stuck` or `complete`, for `workflow` or `task`, and wait until it beats."""


@pytest.fixture
def environment(dsn: str, nats: NatsServer) -> Callable[..., dict[str, str]]:
    """Make the environment of a process: quick settings on this test's servers, and those given."""

    def make(**settings: object) -> dict[str, str]:
        values = {"postgres_dsn": dsn, "nats_url": nats.url, **QUICK, **settings}
        return {f"LIVENESS_{name.upper()}": str(value) for name, value in values.items() if value is not None}

    return make


@pytest.fixture
def liveness(environment: Callable[..., dict[str, str]]) -> Liveness:
    """Run commands; one that is not waited for any more is killed."""

    async def run(*arguments: str, **settings: object) -> Ran:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "liveness", *arguments),
            env=os.environ | environment(**settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(SOON):
                out, err = await process.communicate()
        except BaseException:
            process.kill()
            await process.communicate()
            raise
        assert process.returncode is not None
        ran = Ran(process.returncode, out.decode(), err.decode())
        assert "Traceback" not in ran.err, ran.err
        return ran

    return run


async def all_of(*runs: Coroutine[Any, Any, Ran]) -> list[Ran]:
    """Run several commands at once, and return what became of each, in their order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run) for run in runs]
    return [task.result() for task in tasks]


@contextlib.asynccontextmanager
async def _kept() -> AsyncIterator[list[Child]]:
    """Keep the children of a test: whatever happens, none outlives it, and a failure shows what they said."""
    children: list[Child] = []
    try:
        yield children
    finally:
        for child in children:
            await child.kill()
            sys.stdout.write("\n".join([f"--- pid {child.process.pid}", *child.lines[-100:], ""]))


@pytest.fixture
async def serve(environment: Callable[..., dict[str, str]]) -> AsyncIterator[Serve]:
    """Start services; those that still run at the end have to stop in good order."""
    async with _kept() as services:

        async def start(*, wait: bool = True, **settings: object) -> Service:
            service = Service(await _start(["-m", "liveness", "serve"], environment(**settings)))
            services.append(service)
            if wait:
                await service.ready()
            return service

        yield start
        for service in services:
            if isinstance(service, Service) and service.process.returncode is None:
                await service.stop()


@pytest.fixture
async def start_worker(dsn: str, nats: NatsServer) -> AsyncIterator[StartWorker]:
    """Start workers; those that still run at the end are killed."""
    async with _kept() as workers:

        async def start(name: str, mode: str, work: str = "workflow") -> Child:
            worker = Child(await _start([WORKER, name, mode, work, nats.url, dsn], {}))
            workers.append(worker)
            await worker.said("beating")
            return worker

        yield start


StartJobWorker = Callable[..., Awaitable[tuple[Child, str]]]


@pytest.fixture
async def start_job_worker(dsn: str, nats: NatsServer) -> AsyncIterator[StartJobWorker]:
    """Start workers of job systems, each as `job_worker.py` says; return them with their names. They are killed."""
    async with _kept() as workers:

        async def start(system: str, mode: str, *queues: str, beats: str = "beats") -> tuple[Child, str]:
            module = ["-m", "tests.acceptance.job_worker"]
            worker = Child(await _start([*module, system, nats.url, dsn, mode, beats, ",".join(queues)], {}))
            workers.append(worker)
            return worker, await worker.said("worker")

        yield start


Run = Callable[..., Awaitable[Child]]


@pytest.fixture
async def spy(nats: NatsServer) -> AsyncIterator[Spy]:
    """What a service would hear."""
    async with spying(nats.url) as heard:
        yield heard


@pytest.fixture
async def run(nats: NatsServer) -> AsyncIterator[Run]:
    """Run a shell's script, as the worker `w1` unless told otherwise."""
    async with _kept() as children:

        async def start(script: str, *options: str, worker: str = "w1") -> Child:
            arguments = ["-m", "liveness", "run", "--worker", worker, *options, "--", "sh", "-c", script]
            child = Child(await _start(arguments, {"LIVENESS_NATS_URL": nats.url}))
            children.append(child)
            return child

        yield start


class Gate:
    """Stops the service in the middle of a transaction, at a row of one's choice, and lets it go on.

    A trigger makes the statement wait for a lock that this test holds. The service has to run with a long
    `lock_timeout`.
    """

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def close_before(self, what: str, when: str = "true") -> None:
        """Close the gate before `what` ("UPDATE ON table") happens to a row for which `when` is so."""
        await self._connection.execute(
            "CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN coalesce(NEW, OLD); END'"
        )
        await self._connection.execute(
            f"CREATE TRIGGER gate BEFORE {what} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION gate()"
        )
        await self._connection.execute("SELECT pg_advisory_lock(1)")

    async def reached(self) -> None:
        """Wait until somebody stands before the gate."""
        waiting = (
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        await eventually(lambda: self._connection.fetchval(waiting), lambda count: count > 0)

    async def open(self) -> None:
        """Open the gate."""
        await self._connection.execute("SELECT pg_advisory_unlock(1)")


@pytest.fixture
async def gate(dsn: str) -> AsyncIterator[Gate]:
    """A gate in the fresh database."""
    connection = await asyncpg.connect(dsn)
    yield Gate(connection)
    await connection.close()


@pytest.fixture
async def strict_nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server that lets one user in."""
    server = NatsServer(
        tmp_path / "strict", config='authorization { users = [{ user: "service", password: "another" }] }'
    )
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def client(nats: NatsServer) -> AsyncIterator[Client]:
    """A connection to this test's nats-server."""
    connection = await connect_to_nats(nats.url, max_reconnect_attempts=-1, reconnect_time_wait=0)
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def beating(client: Client, workers: Sequence[str], every: float = 0.2) -> AsyncIterator[None]:
    """Publish empty heartbeats for all `workers`, again and again, while the body runs."""
    over, first = asyncio.Event(), asyncio.Event()

    async def beat() -> None:
        while not over.is_set():
            for worker in workers:
                await client.publish(f"liveness.heartbeat.{worker}", b"")
            await delivered(client)
            first.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), every)

    task = asyncio.create_task(beat())
    try:
        await asyncio.wait({task, asyncio.create_task(first.wait())}, return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        over.set()
        first.set()
        await task
