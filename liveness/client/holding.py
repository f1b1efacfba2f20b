"""What a worker says that it holds, and how it gets on. No clock and no NATS."""

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final
from uuid import UUID

from liveness.errors import DrainingError

# Of the ids in a heartbeat: some 400 UUIDs. The service reads a beat of more than 512 bytes at several times the price
# of a short one, and everybody's beats wait behind it.
MOST_RUNNING_BYTES: Final = 16_384


class Holding:
    """The pieces that are held, by id. One id may be held twice: claimed anew while the former attempt still stops.

    All but `idle` is for any thread.
    """

    def __init__(self) -> None:
        self.draining = False
        self.progress: int | None = None
        self._pieces: Counter[str] = Counter()
        self._bytes = 0
        # What was never reported is not known, and not: nothing.
        self._reports = False
        # A handler of a signal may ask while the thread that it interrupts has it.
        self._lock = threading.RLock()
        # Of those who wait until nothing is held.
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    @contextlib.contextmanager
    def piece(self, work_id: str | UUID) -> Iterator[None]:
        """Hold a piece. Raises ValueError for an id that cannot be told, and DrainingError once it drains."""
        piece = _legible(work_id)
        with self._lock:
            if self.draining:
                raise DrainingError(
                    f"draining: {piece} is not to be begun any more; look at `draining` before you claim"
                )
            self._reports = True
            if piece not in self._pieces:
                self._bytes += _size(piece)
            self._pieces[piece] += 1
        try:
            yield
        finally:
            with self._lock:
                self._pieces[piece] -= 1
                if not self._pieces[piece]:
                    del self._pieces[piece]
                    self._bytes -= _size(piece)
                if not self._pieces:
                    self._wake()

    @property
    def held(self) -> tuple[str, ...]:
        """The ids of all that is held."""
        with self._lock:
            return tuple(self._pieces)

    @property
    def running(self) -> list[str] | None:
        """What a heartbeat says of it; None where nothing is known, or too much: what a list leaves out is not held."""
        with self._lock:
            return list(self._pieces) if self._reports and self._bytes <= MOST_RUNNING_BYTES else None

    def progressed(self) -> None:
        """Count a step."""
        with self._lock:
            self.progress = (self.progress or 0) + 1

    async def idle(self) -> None:
        """Wait until nothing is held."""
        waiting = asyncio.get_running_loop(), asyncio.Event()
        with self._lock:
            if not self._pieces:
                return
            self._waiting.append(waiting)
        try:
            await waiting[1].wait()
        finally:
            with self._lock:
                self._waiting.remove(waiting)

    def abandon(self) -> None:
        """Be a copy in a process that was forked off: whoever held the lock is not there."""
        self._lock = threading.RLock()
        self._waiting = []

    def _wake(self) -> None:
        for loop, idle in self._waiting:
            # Whose loop is over waits no more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(idle.set)


def _legible(work_id: str | UUID) -> str:
    piece = str(work_id)
    try:
        usable = bool(piece.encode())
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise ValueError(f"the work id {piece!r} has to be a text of at least one character that UTF-8 can write")
    return piece


def _size(piece: str) -> int:
    # With its quotes and comma. Of what JSON escapes there is little in an id.
    return len(piece.encode()) + 3
