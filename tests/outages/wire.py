"""A connection to a nats-server by hand: nothing is buffered, sent again or tidied up behind the caller's back."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

HOST: Final = "127.0.0.1"
GREETING_SECONDS: Final = 1.0
# What a server says to a request on a subject that nobody listens to.
NO_RESPONDERS: Final = b"NATS/1.0 503"


@contextlib.asynccontextmanager
async def meanwhile(sending: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let `sending`, which never ends by itself, go on while the body runs; what it raises is raised in the end."""
    task = asyncio.create_task(sending)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Wire:
    """One connection. `lost` is set when it has ended, whoever ended it; `server_id` is what a beat states as `via`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server_id: str) -> None:
        self.server_id: Final = server_id
        self.lost: Final = asyncio.Event()
        self._reader = reader
        self._writer = writer
        self._heard: dict[str, Callable[[str, bytes], None]] = {}
        self._pongs: list[asyncio.Future[None]] = []
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, port: int, host: str = HOST) -> "Wire":
        """Connect; raises OSError or TimeoutError when no server greets within a second."""
        async with asyncio.timeout(GREETING_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                greeting = await reader.readline()
                server = json.loads(greeting.removeprefix(b"INFO "))["server_id"]
                options = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True}
                writer.write(b"CONNECT " + json.dumps(options | {"protocol": 1}).encode() + b"\r\nPING\r\n")
                answer = await reader.readline()
            except BaseException as error:
                writer.close()
                if isinstance(error, ValueError):
                    raise ConnectionError("no greeting") from error
                raise
        if not answer.startswith(b"PONG"):
            writer.close()
            raise ConnectionError(f"the server said {answer!r}")
        return cls(reader, writer, server)

    def publish(self, subject: str, payload: bytes = b"", reply: str = "") -> None:
        """Hand a message to the kernel; raises ConnectionError when the connection has ended."""
        self.send(f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n")

    def send(self, data: bytes) -> None:
        """Hand bytes to the kernel as they are; raises ConnectionError when the connection has ended."""
        if self.lost.is_set() or self._writer.is_closing():
            raise ConnectionError("the connection has ended")
        self._writer.write(data)

    async def drained(self) -> None:
        """Wait until the kernel has taken nearly everything."""
        await self._writer.drain()

    def subscribe(self, subject: str, heard: Callable[[str, bytes], None]) -> None:
        """Call `heard` with subject and payload of every message."""
        number = str(len(self._heard) + 1)
        self._heard[number] = heard
        self.send(f"SUB {subject} {number}\r\n".encode())

    async def delivered(self) -> None:
        """Wait until the server has read everything so far; raises ConnectionError when the connection ends first."""
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self.send(b"PING\r\n")
        await pong

    async def request(self, subject: str, payload: bytes = b"") -> bytes | None:
        """Return the first answer, or None when nobody listens; raises ConnectionError when the connection ends."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        inbox = f"_INBOX.{uuid.uuid4().hex}"

        def heard(_: str, data: bytes) -> None:
            if not answer.done():
                answer.set_result(data)

        self.subscribe(inbox, heard)
        self.publish(subject, payload, inbox)
        ended = asyncio.create_task(self.lost.wait())
        try:
            both: set[asyncio.Future[Any]] = {answer, ended}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
        if not answer.done():
            raise ConnectionError("the connection ended before the answer")
        return None if answer.result().startswith(NO_RESPONDERS) else answer.result()

    async def close(self) -> None:
        """End the connection."""
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        self._writer.close()

    async def _read(self) -> None:
        try:
            while line := await self._reader.readline():
                words = line.split()
                if words[0] in (b"MSG", b"HMSG"):
                    payload = await self._reader.readexactly(int(words[-1]) + 2)
                    # With headers these come first; what tells of no responders has nothing else.
                    self._heard[words[2].decode()](words[1].decode(), payload[:-2])
                elif words[0] == b"PING":
                    self._writer.write(b"PONG\r\n")
                elif words[0] == b"PONG" and self._pongs:
                    pong = self._pongs.pop(0)
                    if not pong.done():
                        pong.set_result(None)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            self.lost.set()
            for pong in self._pongs:
                if not pong.done():
                    pong.set_exception(ConnectionError("the connection has ended"))
                    # Nobody may be waiting for it any more.
                    pong.exception()
            self._writer.close()
