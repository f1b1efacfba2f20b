"""Processes that are forked off from a worker's: they say nothing for it, and it goes on."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from liveness.client import Heartbeater
from liveness.embedded import NatsServer
from tests.conftest import SOON, delivered
from tests.integration.beats import INFO, spying

PROGRAM = Path(__file__).with_name("fork_process.py")

Fork = Callable[[str, str], Awaitable["Forking"]]


class Forking:
    """A process that forks."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def says(self) -> str:
        """Return the next line."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SOON):
            return (await self.process.stdout.readline()).decode().rstrip("\n")

    def go_on(self) -> None:
        """Tell it to."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def end(self) -> tuple[int, str]:
        """Return its exit code, and what it has not said yet."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SOON):
            rest = await self.process.stdout.read()
            return await self.process.wait(), rest.decode()


@pytest.fixture
async def fork() -> AsyncIterator[Fork]:
    """Start processes that fork; nothing of them is left."""
    started: list[Forking] = []

    async def start(what: str, url: str) -> Forking:
        process = await asyncio.create_subprocess_exec(
            # Newer Pythons warn of every fork beside a thread.
            *(sys.executable, "-W", "ignore::DeprecationWarning", PROGRAM, what, url),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(Forking(process))
        return started[-1]

    yield start
    for forking in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(forking.process.pid, signal.SIGKILL)
        await forking.end()


class Heard:
    """All that workers say, by their names."""

    def __init__(self) -> None:
        self.words: list[tuple[str, str]] = []
        self._news = asyncio.Condition()

    async def listen(self, client: Client) -> None:
        """Listen from now on."""
        for verb in ("heartbeat", "goodbye"):
            await client.subscribe(f"liveness.{verb}.>", cb=self._take)
        await delivered(client)

    async def until(self, verb: str, worker: str) -> None:
        """Wait until this is said once more."""
        async with asyncio.timeout(SOON), self._news:
            known = self.words.count((verb, worker))
            await self._news.wait_for(lambda: self.words.count((verb, worker)) > known)

    async def _take(self, message: Msg) -> None:
        _, verb, worker = message.subject.split(".", 2)
        async with self._news:
            self.words.append((verb, worker))
            self._news.notify_all()

    def goodbyes(self) -> list[str]:
        """Return who has said goodbye, in this order."""
        return [worker for verb, worker in self.words if verb == "goodbye"]


@pytest.fixture
async def heard(nats: NatsServer) -> AsyncIterator[Heard]:
    """What a service would hear."""
    async with spying(nats.url) as spy:
        heard = Heard()
        await heard.listen(spy.client)
        yield heard
        await delivered(spy.client)


FIX = "make a Heartbeater of its own in the child"


async def test_a_child_is_refused_and_leaves_in_silence(nats: NatsServer, heard: Heard, fork: Fork) -> None:
    """The parent is as alive as before, and says goodbye once, for itself."""
    forking = await fork("child_leaves", nats.url)
    line = await forking.says()
    assert line.startswith("refused: worker parent: this process was forked from the one")
    assert FIX in line
    assert await forking.says() == "child left"
    await heard.until("heartbeat", "parent")
    assert heard.goodbyes() == []
    forking.go_on()
    assert await forking.says() == "parent holds x"
    assert await forking.end() == (0, "")
    assert heard.goodbyes() == ["parent"]


async def test_a_child_does_not_keep_the_connection(fork: Fork) -> None:
    """When the parent has died, the server sees it end, however long a child lives."""
    gone = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n")
        gone.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        forking = await fork("child_stays", f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await forking.says() == "forked"
        assert not gone.is_set()
        forking.process.kill()
        async with asyncio.timeout(SOON):
            await gone.wait()
        # The child is there still: its output is open.
        assert forking.process.stdout is not None
        assert not forking.process.stdout.at_eof()
        forking.go_on()
        assert await forking.end() == (-signal.SIGKILL, "")


async def test_a_process_of_multiprocessing_has_its_own(nats: NatsServer, heard: Heard, fork: Fork) -> None:
    """Beside its parent's, which goes on."""
    forking = await fork("pool", nats.url)
    assert FIX in await forking.says()
    assert await forking.says() == "child ended with 0"
    assert await forking.end() == (0, "")
    assert heard.goodbyes() == ["child", "parent"]


async def test_workers_that_are_forked_beforehand(nats: NatsServer, heard: Heard, fork: Fork) -> None:
    """Each makes its own; what was made before the fork is refused, for all of them would be one life."""
    forking = await fork("prefork", nats.url)
    said = sorted([await forking.says() for _ in range(4)])
    assert [FIX in line for line in said[:2]] == [True, True]
    assert said[2:] == ["worker 0", "worker 1"]
    for worker in ("w0", "w1", "parent"):
        await heard.until("heartbeat", worker)
    forking.go_on()
    assert await forking.says() == "ended 0 0"
    assert await forking.end() == (0, "")
    assert sorted(heard.goodbyes()[:2]) == ["w0", "w1"]
    assert heard.goodbyes()[2:] == ["parent"]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_child_of_an_event_loop(nats: NatsServer) -> None:
    """Is refused as well, and says nothing, though it goes on where its parent was."""
    async with spying(nats.url) as spy:
        async with Heartbeater(nats.url, worker="w1", ttl=600, interval=0.05) as worker:
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    worker.check()
                    os.write(write, b"not refused")
                except RuntimeError as error:
                    # Nothing is awaited in it, so no loop is needed.
                    with contextlib.suppress(StopIteration):
                        worker.__aexit__(None, None, None).send(None)
                    os.write(write, str(error).encode())
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)  # noqa: ASYNC222 - it ends at once
            said = os.read(read, 1000).decode()
            os.close(read)
            os.close(write)
            assert FIX in said
            for _ in range(3):
                await spy.beat()
            worker.check()
        await spy.goodbye()
