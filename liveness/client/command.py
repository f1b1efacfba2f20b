"""A command in a process group of its own, of which nothing is left when it has ended, or we.

The rules that this file keeps:

1. Its end is seen by `waitpid`, and nothing else counts as its end.
2. It is over when its whole group is gone, and not before: what it left behind in the background works under its name,
   and is killed. On Linux what loses its parent becomes our child, so that even a group of the dead whom nobody buries
   does not keep us. Who leaves the group (`setsid`) escapes.
3. It does not outlive us, so that our silence means its death. On Linux the kernel kills the command itself with us
   (`PR_SET_PDEATHSIG`, prctl(2)); the rest of its group, and elsewhere the command too, is killed by a guard, a process
   that nobody else has a reason to kill. If somebody does, there is a new one.

All children of this process are waited for here: it has no other business.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from liveness.client import guard
from liveness.client.problems import Problems

# From <linux/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
# As shells have it: not found, found and not to be run, and what is added to the number of a signal.
NOT_FOUND, NOT_RUNNABLE, BY_SIGNAL = 127, 126, 128
# Between two looks whether the group is gone. Usually a child's end comes first.
LOOK_SECONDS: Final = 0.05


class Ended(msgspec.Struct, frozen=True):
    """How a command ended: with an exit code, or by a signal."""

    exit_code: int | None = None
    signal: int | None = None

    @property
    def status(self) -> int:
        """The exit status by which a shell would tell."""
        return BY_SIGNAL + self.signal if self.signal is not None else self.exit_code or 0


class CannotRunError(Exception):
    """The command cannot be started; `status` is what a shell would exit with."""

    def __init__(self, program: str, error: OSError) -> None:
        super().__init__(f"{program} cannot be run: {error.strerror or error}")
        self.status: Final = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_RUNNABLE


class Command:
    """Runs once. To be made in the main thread, which has to stay: the kernel takes its end for ours."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems
        self._loop = asyncio.get_running_loop()
        self._libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
        self._process: subprocess.Popen[bytes] | None = None
        # The number of the process is that of its group, too; 0 before it has begun.
        self._group = 0
        self._guard: _Guard | None = None
        self._ended: asyncio.Future[Ended] = self._loop.create_future()
        self._reaped = asyncio.Event()

    def start(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it. Raises CannotRunError."""
        if self._libc is not None:
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._guard = _Guard()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - whoever calls this wants that command
                arguments,
                env=environment,
                process_group=0,
                preexec_fn=self._before_it_begins(os.getpid(), self._guard),  # noqa: PLW1509 - the one thread that there is
            )
        except OSError as error:
            self._guard.dismiss()
            raise CannotRunError(arguments[0], error) from error
        self._group = self._process.pid

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._ended.done()

    def pass_on(self, number: int) -> None:
        """Pass a signal on to it."""
        if self._group and not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._group, number)

    async def wait(self) -> Ended:
        """Return how it ended."""
        return await asyncio.shield(self._ended)

    async def clear(self) -> None:
        """Kill what is left of its group, and return when nothing of it is there any more."""
        while self._kill_group():
            self._reaped.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._reaped.wait()
        if self._guard is not None:
            self._guard.dismiss()

    def close(self) -> None:
        """Hear of no child any more: a loop that closes complains of signals that come meanwhile."""
        self._loop.remove_signal_handler(signal.SIGCHLD)

    def _before_it_begins(self, parent: int, found: "_Guard") -> Callable[[], None]:
        libc, terminal = self._libc, _foreground_terminal()

        def before() -> None:
            # In the new process, before it becomes the command. What it begins must find the guard told already.
            found.tell(os.getpid())
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != parent:
                    # We were killed before the kernel knew.
                    os.kill(os.getpid(), signal.SIGKILL)
            if terminal is not None:
                # A group in the background would be stopped for it, and by every read from the terminal.
                signal.signal(signal.SIGTTOU, signal.SIG_IGN)
                with contextlib.suppress(OSError):
                    os.tcsetpgrp(terminal, os.getpid())
                signal.signal(signal.SIGTTOU, signal.SIG_DFL)

        return before

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if self._process is not None and pid == self._group:
                self._process.returncode = code = os.waitstatus_to_exitcode(status)
                self._ended.set_result(Ended(exit_code=code) if code >= 0 else Ended(signal=-code))
            elif self._guard is not None and pid == self._guard.pid and not self._guard.dismissed:
                self._guard.dismiss()
                self._guard = _Guard()
                self._guard.tell(self._group)
                self._problems.report("guard", "the guard was killed; there is a new one")
        self._reaped.set()

    def _kill_group(self) -> bool:
        """Kill the group; return whether there was anything of it."""
        try:
            os.killpg(self._group, signal.SIGKILL)
        except ProcessLookupError:
            return False
        except PermissionError:
            # What took another user's rights: it works on, so it is not over.
            self._problems.report("group", "some of the command's processes are another user's: waiting for their end")
        return True


class _Guard:
    """The process of `guard.py`."""

    def __init__(self) -> None:
        heard, self._said = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", str(Path(guard.__file__))],
            stdin=heard,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Out of reach of what a terminal sends to a group.
            start_new_session=True,
        )
        os.close(heard)
        self.pid: Final = self._process.pid
        self.dismissed = False

    def tell(self, group: int) -> None:
        """Say which group is to end with us; 0 for none."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._said, b"%d\n" % group)

    def dismiss(self) -> None:
        """Let it go: nothing is to end any more."""
        if not self.dismissed:
            self.tell(0)
            os.close(self._said)
            self.dismissed = True
            # Whoever buries it is `Command`.
            self._process.returncode = 0


def _foreground_terminal() -> int | None:
    """Return our standard input if it is a terminal, and we are alone with it."""
    try:
        # With output into a pipe, our group has others in it, which need the terminal as well.
        return 0 if os.isatty(0) and os.isatty(1) and os.tcgetpgrp(0) == os.getpgrp() else None
    except OSError:
        return None
