"""A TCP proxy of ours: cuts connections, stops forwarding without closing, or forwards slowly."""

import asyncio
import contextlib
import socket
import struct
from typing import Final

HOST: Final = "127.0.0.1"
CHUNK: Final = 16_384
# Zero seconds to linger: closing resets the connection instead of ending it in good order.
RESET: Final = struct.pack("ii", 1, 0)


class _Pair:
    """One connection through the proxy."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.ends: Final = (near, far)
        self.dead = False

    def reset(self) -> None:
        """Break it off at both ends."""
        for end in self.ends:
            connection = end.get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            end.transport.abort()


class Proxy:
    """Forwards connections to `port` on this machine. Where it listens is `self.port`, on `host`."""

    def __init__(self, port: int, host: str = HOST) -> None:
        self.port = 0
        self._target: Final = port
        self._host: Final = host
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._bytes_per_second = 0
        # What becomes of bytes: to the server, and from it.
        self._vanish = {False: False, True: False}
        self._shut = False
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._accept, self._host, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Break off every connection and stop listening."""
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """How many connections it forwards now."""
        return sum(not pair.dead for pair in self._pairs)

    def cut(self) -> None:
        """Reset every connection; new ones are welcome."""
        for pair in list(self._pairs):
            pair.reset()

    def freeze(self) -> None:
        """Make every connection half-open for good: neither forwarded nor closed any more. New ones are forwarded."""
        for pair in self._pairs:
            pair.dead = True

    def hold(self) -> None:
        """Forward nothing, accept everything: what a network does that loses all packets for a while."""
        self._open.clear()

    def release(self) -> None:
        """Forward again, beginning with what was held."""
        self._open.set()

    def vanish(self, *, to_server: bool = False, from_server: bool = False) -> None:
        """Let what goes one way vanish, or both: nothing is closed, and the end of a connection vanishes, too."""
        self._vanish = {False: to_server, True: from_server}

    def shut(self) -> None:
        """Reset every connection, and every new one."""
        self._shut = True
        self.cut()

    def throttle(self, bytes_per_second: int) -> None:
        """Forward so much from the server at most; 0 for as fast as it goes."""
        self._bytes_per_second = bytes_per_second

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._shut:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._open.wait()
            far_reader, far_writer = await asyncio.open_connection(HOST, self._target)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        except asyncio.CancelledError:
            # The server's callback must not end cancelled: that would be logged as an error.
            writer.transport.abort()
            return
        pair = _Pair(writer, far_writer)
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._forward(pair, reader, far_writer, from_server=False))
                ways.create_task(self._forward(pair, far_reader, writer, from_server=True))
        except (asyncio.CancelledError, ExceptionGroup):
            pass
        finally:
            pair.reset()
            self._pairs.discard(pair)
            self._tasks.discard(task)

    async def _forward(
        self, pair: _Pair, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool
    ) -> None:
        while data := await reader.read(CHUNK):
            await self._open.wait()
            if pair.dead:
                # Not even its end is told.
                await asyncio.get_running_loop().create_future()
            if self._vanish[from_server]:
                continue
            if from_server and self._bytes_per_second:
                await asyncio.sleep(len(data) / self._bytes_per_second)
            writer.write(data)
            await writer.drain()
        await self._open.wait()
        if pair.dead or self._vanish[from_server]:
            await asyncio.get_running_loop().create_future()
        raise ConnectionError("one end has closed")
