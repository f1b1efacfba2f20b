"""`liveness run --watch`: whether the command gets anything done, by what can be seen of it from outside."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from liveness.client.notifications import Notifications, without_notifications
from liveness.client.output import Output
from liveness.client.problems import Problems, log
from liveness.client.progress import Progress

# Between two looks. One is a few microseconds, and a watch cannot find anything faster than that.
LOOK_SECONDS: Final = 0.1


class Watched(msgspec.Struct, frozen=True):
    """What counts as progress: any of these. Of nothing, none is expected."""

    files: Sequence[str] = ()
    output: bool = False
    socket: bool = False

    @property
    def anything(self) -> bool:
        """Whether there is something to watch."""
        return bool(self.files) or self.output or self.socket


class Watch:
    """Watches a command from `begin` on; until then nothing is expected of it. Raises OSError when there is no socket.

    `patience` is the seconds without progress after which it stands still.
    """

    def __init__(self, worker: str, watched: Watched, *, patience: float) -> None:
        self._worker = worker
        self._patience = patience
        self._watched = watched
        self._on_return: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._progress: Progress | None = None
        self._problems = Problems(f"worker {worker}")
        self._files = [_File(path, self._problems) for path in watched.files]
        self._notifications = Notifications() if watched.socket else None
        self._output = Output(self._problems, self._seen_from_a_thread) if watched.output else None
        self._next: asyncio.TimerHandle | None = None

    def environment(self, around: Mapping[str, str]) -> dict[str, str]:
        """Return the command's environment."""
        if self._notifications is None:
            return dict(around)
        # It speaks to us: what it says to systemd would be about us.
        return {**without_notifications(around), **self._notifications.variables(self._patience)}

    @property
    def streams(self) -> tuple[int, int] | tuple[None, None]:
        """Where the command has to write to; nothing where it is not watched."""
        return (None, None) if self._output is None else (self._output.stdout, self._output.stderr)

    def begin(self, on_return: Callable[[], None]) -> None:
        """Watch the command, which has just begun; call `on_return` when it goes on after it stood still."""
        if not self._watched.anything:
            return
        self._on_return = on_return
        self._progress = Progress(patience=self._patience, now=self._loop.time())
        if self._notifications is not None:
            self._loop.add_reader(self._notifications, self._take)
        if self._output is not None:
            self._output.begin()
        self._look_again()

    def alive(self) -> bool:
        """Look, and return whether it does not stand still."""
        return not self._stands_still()

    def close(self) -> None:
        """Watch it no longer; it is over, and what it wrote last may still be on its way."""
        if self._next is not None:
            self._next.cancel()
        if self._notifications is not None:
            self._loop.remove_reader(self._notifications)
            self._notifications.close()
        if self._output is not None:
            if self._progress is None:
                self._output.cancel()
            else:
                self._output.finish()

    def _look_again(self) -> None:
        self._stands_still()
        self._next = self._loop.call_later(LOOK_SECONDS, self._look_again)

    def _stands_still(self) -> bool:
        if self._progress is None:
            return False
        for file in self._files:
            if file.touched():
                self._seen()
        if self._progress.look(self._loop.time()):
            log.warning("worker %s: no progress for %g s: its heartbeats are held back", self._worker, self._patience)
        return self._progress.stands_still

    def _take(self) -> None:
        if self._notifications is not None and self._notifications.take():
            self._seen()

    def _seen_from_a_thread(self) -> None:
        # The loop may be gone before the output is.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._seen)

    def _seen(self) -> None:
        if self._progress is not None and self._progress.show(self._loop.time()):
            # As loud as what it takes back.
            log.warning("worker %s: progress again: its heartbeats go on", self._worker)
            self._on_return()


class _File:
    def __init__(self, path: str, problems: Problems) -> None:
        self._path = Path(path)
        self._problems = problems
        self._known = self._state()

    def touched(self) -> bool:
        """Return whether it is there, and is not as it was when it was looked at last."""
        state, former = self._state(), self._known
        self._known = state
        return state is not None and state != former

    def _state(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            # The command may make it.
            return None
        except OSError as error:
            self._problems.report(f"watch {self._path}", f"{self._path} cannot be watched: {error.strerror}")
            return None
        # A file that was moved into its place is another one, and may be as old.
        return found.st_mtime_ns, found.st_size, found.st_ino
