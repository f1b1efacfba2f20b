"""What hears a heartbeater: a spy on a real server, and a server that misbehaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self

import msgspec
import nats as nats_py
from nats.aio.client import Client
from nats.aio.msg import Msg

from liveness.messages import Goodbye, Heartbeat
from tests.conftest import SOON, delivered

INFO = b'INFO {"server_id":"fake","version":"2.12.0","max_payload":1048576,"headers":true}\r\n'


class Spy:
    """Hears heartbeats and goodbyes as a service would."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.subjects: set[str] = set()
        self._heard: asyncio.Queue[Msg] = asyncio.Queue()

    async def listen(self) -> None:
        """Subscribe, and return once the server knows it."""
        await self.client.subscribe("liveness.heartbeat.>", cb=self._heard.put)
        await self.client.subscribe("liveness.goodbye.>", cb=self._heard.put)
        await delivered(self.client)

    async def next(self) -> Heartbeat | Goodbye:
        """Wait for the next message."""
        async with asyncio.timeout(SOON):
            message = await self._heard.get()
        self.subjects.add(message.subject)
        if message.subject.startswith("liveness.goodbye."):
            return msgspec.json.decode(message.data, type=Goodbye)
        return msgspec.json.decode(message.data, type=Heartbeat)

    async def beat(self) -> Heartbeat:
        """Wait for the next message, which has to be a heartbeat."""
        message = await self.next()
        assert isinstance(message, Heartbeat)
        return message

    async def goodbye(self) -> Goodbye:
        """Wait for a goodbye, check that nothing stands behind it, and return it without its uptime, which it has."""
        while isinstance(message := await self.next(), Heartbeat):
            pass
        await delivered(self.client)
        assert self._heard.empty()
        assert message.uptime is not None
        return msgspec.structs.replace(message, uptime=None)

    async def silent(self) -> bool:
        """Return whether nothing came beyond what was waited for."""
        await delivered(self.client)
        return self._heard.empty()


class FakeServer:
    """Speaks enough NATS for a heartbeater, and misbehaves on demand.

    `misbehave(connection, beat)`, both counted from 1, returns bytes to send after that beat, or None to say nothing
    more on that connection, not even answers.
    """

    def __init__(self, misbehave: Callable[[int, int], bytes | None], port: int = 0) -> None:
        self.beats: asyncio.Queue[tuple[int, Heartbeat]] = asyncio.Queue()
        self._misbehave = misbehave
        self._port = port
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def next(self) -> tuple[int, Heartbeat]:
        """Wait for the next beat; return the connection that it came on, and the beat."""
        async with asyncio.timeout(SOON):
            return await self.beats.get()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        self._tasks.add(asyncio.create_task(self._serve(self._connections, reader, writer)))

    async def _serve(self, connection: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beats, silent = 0, False
        writer.write(INFO)
        try:
            while line := await reader.readline():
                if line.startswith(b"PUB liveness.heartbeat."):
                    payload = await reader.readexactly(int(line.split()[-1]) + 2)
                    beats += 1
                    answer = self._misbehave(connection, beats)
                    silent = silent or answer is None
                    writer.write(answer or b"")
                    self.beats.put_nowait((connection, msgspec.json.decode(payload, type=Heartbeat)))
                elif line == b"PING\r\n" and not silent:
                    writer.write(b"PONG\r\n")
        except OSError:
            pass
        finally:
            writer.transport.abort()


@contextlib.asynccontextmanager
async def spying(url: str) -> AsyncIterator[Spy]:
    """Yield a spy on the server at `url`."""
    client = await nats_py.connect(url)
    spy = Spy(client)
    await spy.listen()
    yield spy
    await client.close()
