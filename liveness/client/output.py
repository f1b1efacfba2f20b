"""What a command writes, on its way to where it would have written it."""

import contextlib
import os
import select
import threading
from collections.abc import Callable
from typing import Final

from liveness.client.problems import Problems

_STDOUT, _STDERR = 1, 2
# What a pipe of Linux holds.
_READ_BYTES: Final = 1 << 16


class Output:
    """Pipes for the command's two streams; what comes is handed on as it is, and `on_output` is called from a thread.

    By threads that wait, and not by the event loop: where nobody takes the output, the command has to wait, and
    nothing else. Our own streams stay as they are, for others have a part in them.
    """

    def __init__(self, problems: Problems, on_output: Callable[[], None]) -> None:
        self._problems = problems
        self._on_output = on_output
        self._ways: list[tuple[int, int]] = []
        self._threads: list[threading.Thread] = []
        self.stdout: Final = self._pipe(_STDOUT)
        # Into the same file by the same pipe: the order of the two is kept.
        self.stderr: Final = self.stdout if _are_one(_STDOUT, _STDERR) else self._pipe(_STDERR)

    def begin(self) -> None:
        """Hand on what comes, once the command has been started: a thread and a fork do not go together."""
        self._close_our_ends()
        for source, target in self._ways:
            thread = threading.Thread(target=self._hand_on, args=(source, target), daemon=True)
            thread.start()
            self._threads.append(thread)

    def finish(self) -> None:
        """Wait until everything is handed on; there has to be nobody any more who could write."""
        for thread in self._threads:
            thread.join()

    def cancel(self) -> None:
        """Close what was opened for a command that did not begin."""
        self._close_our_ends()
        for source, _ in self._ways:
            os.close(source)

    def _pipe(self, target: int) -> int:
        source, ours = os.pipe()
        self._ways.append((source, target))
        return ours

    def _close_our_ends(self) -> None:
        for end in {self.stdout, self.stderr}:
            os.close(end)

    def _hand_on(self, source: int, target: int) -> None:
        try:
            while chunk := os.read(source, _READ_BYTES):
                self._on_output()
                _write(target, chunk)
        except BrokenPipeError:
            # Nobody reads it any more: the command finds that out by its next write, as it would have without us.
            pass
        except OSError as error:
            self._problems.report("output", f"the command's output cannot be handed on: {error}")
        finally:
            os.close(source)


def _write(target: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        try:
            rest = rest[os.write(target, rest) :]
        except BlockingIOError:
            # Somebody who has a part in it does not want to wait; we do.
            select.select([], [target], [])


def _are_one(first: int, second: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.sameopenfile(first, second)
    return False
