"""Requests on several connections, as many as a server answers: what the loads of the peers have in common.

A lane is one connection. It sends requests by the chunk, made before, and keeps some chunks under way, like a client
that pipelines. So the server always has something to do, and what is counted is what it has answered.
"""

import selectors
import socket
import time
from collections.abc import Sequence
from typing import Final

HOST: Final = "127.0.0.1"
READ_BYTES: Final = 1 << 18
# Before it counts, seconds: caches, windows and files grow.
WARM_SECONDS: Final = 0.5


class Lane:
    """One connection to `port`, on which `chunks` go round, each of `per_chunk` requests, `depth` of them under way."""

    def __init__(self, port: int, *, per_chunk: int, depth: int) -> None:
        self.connection: Final = socket.create_connection((HOST, port))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.chunks: Sequence[bytes] = ()
        self._per_chunk: Final = per_chunk
        self._depth: Final = depth
        self._next = self._under_way = 0

    def answered(self, data: bytes) -> int:
        """Return how many requests `data`, which has just come, answers. Raises RuntimeError for a refusal."""
        raise NotImplementedError

    def fill(self) -> None:
        """Send as many chunks as may be under way."""
        free = self._depth - -(-self._under_way // self._per_chunk)
        if free > 0:
            count = len(self.chunks)
            # What is under way fits into the kernel's buffers, so this does not block.
            self.connection.sendall(b"".join(self.chunks[(self._next + one) % count] for one in range(free)))
            self._next += free
            self._under_way += free * self._per_chunk

    def turn(self) -> int:
        """Read what has come, send what may be sent, and return how many requests were answered."""
        data = self.connection.recv(READ_BYTES)
        if not data:
            raise ConnectionError("the server has closed the connection")
        done = self.answered(data)
        self._under_way -= done
        self.fill()
        return done


def flood(lanes: Sequence[Lane], seconds: float) -> float:
    """Keep all lanes full for so long; return how many requests were answered a second."""
    with selectors.DefaultSelector() as selector:
        for lane in lanes:
            selector.register(lane.connection, selectors.EVENT_READ, lane)
            lane.fill()
        _turn_until(selector, time.monotonic() + WARM_SECONDS)
        began = time.monotonic()
        done = _turn_until(selector, began + seconds)
        return done / (time.monotonic() - began)


def in_chunks(requests: Sequence[bytes], per_chunk: int) -> list[bytes]:
    """Join so many requests at a time; what is left over at the end is left out."""
    whole = len(requests) - len(requests) % per_chunk
    return [b"".join(requests[start : start + per_chunk]) for start in range(0, whole, per_chunk)]


def _turn_until(selector: selectors.BaseSelector, end: float) -> int:
    done = 0
    while (left := end - time.monotonic()) > 0:
        done += sum(key.data.turn() for key, _ in selector.select(left))
    return done
