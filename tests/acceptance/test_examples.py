"""The workers of `examples/` do what they are shown for: claim, live, die, and have their work finished by another."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

from liveness.embedded import NatsServer
from liveness.embedded.postgres_programs import find_postgres
from liveness.messages import Heartbeat, Superseded
from tests.conftest import SOON, HostTables
from tests.integration.beats import INFO, FakeServer, Spy, spying

from .conftest import Child, Serve, _kept, eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
# Seconds: what nobody waits for.
LONG = 600.0
# Of a worker, the service knows what it states, and nothing is found by the sweep in the time of a test.
PATIENT: Mapping[str, Any] = {"heartbeat_timeout": 60, "workflow_stuck_timeout": 60}


# The command line of a worker with this name, whose work takes so many seconds. It finds NATS_URL, DATABASE_URL, QUEUE
# and TTL in its environment, and prints "NAME has claimed ID" and "NAME has finished ID". Another one is a fixture, and
# a parameter of `example`.
Example = Callable[[str, float], Sequence[str | Path]]


@pytest.fixture(scope="session")
def node_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install what the Node worker needs beside a copy of it."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("no node and npm on the PATH")
    folder = tmp_path_factory.mktemp("node")
    for file in ("package.json", "worker.mjs"):
        shutil.copy(EXAMPLES / "node" / file, folder)
    options = ["--no-save", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    installed = subprocess.run([npm, "install", *options], cwd=folder, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return folder


@pytest.fixture
def node(node_folder: Path) -> Example:
    """The worker in Node."""
    return lambda name, work: ["env", f"WORK_SECONDS={work}", "node", node_folder / "worker.mjs", name]


@pytest.fixture
def shell() -> Example:
    """The worker in bash, which works by psql."""
    path = f"PATH={find_postgres()}:{os.environ['PATH']}"
    work_sh = EXAMPLES / "shell" / "work.sh"
    return lambda name, work: ["env", path, *worker_sh(name, work_sh, "billing", "sh", "-c", f"sleep {work}")]


def python(worker: Path) -> Example:
    """Return how a worker in Python is run."""
    return lambda name, work: ["env", f"WORK_SECONDS={work}", sys.executable, worker, name]


@pytest.fixture
def asyncpg() -> Example:
    """The worker in Python with an event loop."""
    return python(EXAMPLES / "python-asyncpg" / "worker.py")


@pytest.fixture
def psycopg() -> Example:
    """The worker in Python without one."""
    return python(EXAMPLES / "python-sync" / "sync_worker.py")


def worker_sh(name: str, *command: str | Path) -> Sequence[str | Path]:
    """Return how bash's worker is run with a command of one's own."""
    return [EXAMPLES / "shell" / "worker.sh", name, *command]


@pytest.fixture(params=["shell", "node", "asyncpg", "psycopg"])
def example(request: pytest.FixtureRequest) -> Example:
    """Each of the workers in turn."""
    made: Example = request.getfixturevalue(request.param)
    return made


@pytest.fixture(params=["node", "asyncpg", "psycopg"])
def whole(request: pytest.FixtureRequest) -> Example:
    """Each of those that hear what the service says, in turn."""
    made: Example = request.getfixturevalue(request.param)
    return made


class Examples:
    """The workers of a test."""

    def __init__(self, environment: Mapping[str, str], children: list[Child]) -> None:
        self._environment = environment
        self._children = children

    async def start(self, example: Example, name: str = "w1", *, work: float = LONG, ttl: float = LONG) -> Child:
        """Start a worker, in a session of its own, with beats that are good for `ttl`."""
        process = await asyncio.create_subprocess_exec(
            *example(name, work),
            env=os.environ | dict(self._environment) | {"TTL": f"{ttl:g}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        child = Child(process)
        self._children.append(child)
        return child


@pytest.fixture
async def examples(dsn: str, nats: NatsServer) -> AsyncIterator[Examples]:
    """Start workers on this test's servers; nothing of them is left at the end."""
    servers = {"NATS": nats.url.removeprefix("nats://"), "NATS_URL": nats.url, "DATABASE_URL": dsn}
    async with _kept() as children:
        yield Examples(servers | {"QUEUE": "billing", "INTERVAL": "0.2"}, children)
        for child in children:
            lose(child)


def lose(child: Child) -> None:
    """Kill a worker and all that it has begun, as if its machine was lost."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.process.pid, signal.SIGKILL)


async def test_the_work_of_a_worker_that_is_lost_is_finished_by_another(
    serve: Serve, host: HostTables, examples: Examples, example: Example
) -> None:
    """By the ttl that it stated."""
    await serve(**PATIENT)
    for name in ("w1", "w2"):
        await host.worker(name)
    (workflow,) = await host.workflows(None, status="PENDING")
    first = await examples.start(example, "w1", ttl=1)
    await first.said(f"w1 has claimed {workflow}")
    assert await host.state(workflow) == ("RUNNING", "w1")
    lose(first)
    second = await examples.start(example, "w2", work=0)

    await second.said(f"w2 has finished {workflow}")
    assert await host.state(workflow) == ("COMPLETED", "w2")
    (row,) = await host.connection.fetch("SELECT worker, reason, ttl FROM liveness.expiration")
    assert tuple(row) == ("w1", "lapsed", 1)


async def test_what_a_worker_holds_goes_back_when_it_is_told_to_end(
    serve: Serve, host: HostTables, examples: Examples, example: Example
) -> None:
    """At once, by its goodbye."""
    await serve(**PATIENT)
    await host.worker("w1")
    (workflow,) = await host.workflows(None, status="PENDING")
    child = await examples.start(example, work=0)
    await child.said(f"w1 has finished {workflow}")
    # In no queue of its own, so that it does not finish it on its way out.
    (held,) = await host.workflows("w1")
    # As a terminal does: all of its processes.
    os.killpg(child.process.pid, signal.SIGTERM)
    await child.end()

    await eventually(lambda: host.state(held), lambda state: state == ("PENDING", None))
    assert await host.connection.fetchval("SELECT reason FROM liveness.expiration") == "released"


async def test_a_new_process_of_a_name_takes_nothing_over(
    serve: Serve, host: HostTables, examples: Examples, example: Example
) -> None:
    """What the former one held is back as soon as the new one is heard, and is claimed anew."""
    await serve(**PATIENT)
    await host.worker("w1")
    (workflow,) = await host.workflows(None, status="PENDING")
    former = await examples.start(example)
    await former.said(f"w1 has claimed {workflow}")
    lose(former)
    new = await examples.start(example, work=0)

    await new.said(f"w1 has finished {workflow}")
    assert await host.connection.fetchval("SELECT reason FROM liveness.expiration") == "restarted"


@pytest.mark.parametrize("name", ["asyncpg", "psycopg"])
async def test_a_worker_that_is_cut_off_drops_its_work(
    serve: Serve, host: HostTables, nats: NatsServer, examples: Examples, request: pytest.FixtureRequest, name: str
) -> None:
    """Before anybody could take it; and it begins again when NATS is back."""
    await serve(**PATIENT)
    await host.worker("w1")
    (workflow,) = await host.workflows(None, status="PENDING")
    child = await examples.start(request.getfixturevalue(name), ttl=1)
    first = int(await child.said("w1 lives in epoch"))
    await child.said(f"w1 has claimed {workflow}")
    nats.pause()
    await child.said(f"w1 was given up, and has dropped {workflow}")
    assert await host.state(workflow) == ("RUNNING", "w1")
    nats.resume()
    await eventually(
        lambda: host.connection.fetchval("SELECT max(epoch) FROM liveness.epoch"), lambda epoch: epoch > first
    )
    await eventually(lambda: asyncio.sleep(0, child.lines.count(f"w1 has claimed {workflow}")), lambda count: count > 1)


async def test_the_shell_worker_is_beaten_for_while_anything_of_it_works(spy: Spy, examples: Examples) -> None:
    """Though its own process was killed; what ends last ends it, and that is told."""
    child = await examples.start(lambda name, _: worker_sh(name, "sh", "-c", "sleep 600 & echo pid $!; wait"))
    pid = int(await child.said("pid"))
    child.signal(signal.SIGKILL)
    await eventually(lambda: asyncio.sleep(0, child.process.returncode), lambda code: code == -signal.SIGKILL)
    while not await spy.silent():
        await spy.beat()
    beat = await spy.beat()
    os.kill(pid, signal.SIGKILL)

    assert (await spy.goodbye()).incarnation == beat.incarnation
    assert beat.ttl == LONG
    # Whoever beats is gone, too.
    await child.end()


async def test_a_worker_comes_back(nats: NatsServer, examples: Examples, example: Example) -> None:
    """It is heard again when NATS was away."""
    await examples.start(example, ttl=1)
    async with spying(nats.url) as spy:
        before = await spy.beat()
    await nats.stop()
    await nats.start()
    async with spying(nats.url) as spy:
        after = await spy.beat()

    assert after.incarnation == before.incarnation
    assert (after.uptime or 0) > (before.uptime or 0)


async def test_the_shell_worker_answers_the_server(examples: Examples) -> None:
    """Else it would be sent away, sooner or later."""
    answered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO + b"PING\r\n")
        while line := await reader.readline():
            if line == b"PONG\r\n":
                answered.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        child = await examples.start(lambda name, _: ["env", f"NATS={host}:{port}", *worker_sh(name, "sleep", "600")])
        async with asyncio.timeout(SOON):
            await answered.wait()
        lose(child)


async def test_the_shell_worker_leaves_a_server_that_does_not_answer() -> None:
    """One that is gone without a word looks as if it took everything."""
    async with FakeServer(lambda connection, _: None if connection == 1 else b"") as server, _kept() as children:
        examples = Examples({"NATS": server.url.removeprefix("nats://"), "INTERVAL": "0.1"}, children)
        child = await examples.start(lambda name, _: worker_sh(name, "sleep", "600"))
        connections = [connection for connection, _ in [await server.next() for _ in range(4)]]
        lose(child)

    assert connections == [1, 1, 1, 2]


async def test_a_worker_finishes_what_it_does(host: HostTables, spy: Spy, examples: Examples, whole: Example) -> None:
    """On its way out; the goodbye comes behind that."""
    (workflow,) = await host.workflows(None, status="PENDING")
    child = await examples.start(whole, work=0.5)
    await child.said(f"w1 has claimed {workflow}")
    child.signal(signal.SIGTERM)
    goodbye = await spy.goodbye()

    assert await child.end() == 0
    assert goodbye.incarnation
    assert await host.state(workflow) == ("COMPLETED", "w1")


async def test_a_worker_says_and_hears_all(
    serve: Serve, host: HostTables, client: Client, examples: Examples, whole: Example
) -> None:
    """Its epoch, answers to probes, and that it was given up: it drops its work, and claims anew."""
    await serve(**PATIENT)
    await host.worker("w1")
    (workflow,) = await host.workflows(None, status="PENDING")
    child = await examples.start(whole)
    epoch = int(await child.said("w1 lives in epoch"))
    await child.said(f"w1 has claimed {workflow}")
    row = await host.connection.fetchrow("SELECT epoch, incarnation FROM liveness.epoch")
    answer = await client.request("liveness.probe.w1", b"", timeout=SOON)
    beat = msgspec.json.decode(answer.data, type=Heartbeat)
    notice = Superseded(
        epoch=epoch, incarnation=beat.incarnation, new_epoch=epoch + 1, new_incarnation=beat.incarnation
    )
    await client.publish("liveness.superseded.w1", msgspec.json.encode(notice))
    await child.line(lambda line: line == f"w1 was given up, and has dropped {workflow}")

    assert row is not None
    assert tuple(row) == (epoch, beat.incarnation)
    assert (beat.ttl, beat.interval, beat.probe) == (LONG, LONG / 5, True)
    assert beat.running == [workflow]
    assert beat.via == client._server_info["server_id"]
    assert await eventually(lambda: host.state(workflow), lambda state: state == ("RUNNING", "w1"))
