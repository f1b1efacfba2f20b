"""A command in a process group of its own, of which nothing is left when it has ended, or we.

The rules that this file keeps:

1. Its end is seen by `waitpid`, and nothing else counts as its end.
2. It is over when nothing of it is left, and not before: what it left behind works under its name, and is killed. On
   Linux what loses its parent becomes our child, so whoever left the group (`setsid`, `timeout`) is found as well;
   elsewhere it escapes.
3. It does not outlive us, so that our silence means its death. On Linux the kernel kills the command itself with us
   (`PR_SET_PDEATHSIG`, prctl(2); not one that changes its rights, as by sudo). The rest of its group, and elsewhere the
   command too, is killed by a guard, a process that nobody else has a reason to kill; if somebody does, there is a new
   one. Whoever left the group escapes here.

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

# What a terminal does to who is not, or shall not be, in its foreground.
_OF_THE_TERMINAL: Final = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
# From <linux/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
# As shells have it: not found, found and not to be run, and what is added to the number of a signal.
NOT_FOUND, NOT_RUNNABLE, BY_SIGNAL = 127, 126, 128
# Between two looks whether anything is left. Usually a child's end comes first.
LOOK_SECONDS: Final = 0.05
# Before another guard takes the place of one that ended: whoever kills it again and again must not keep us busy.
GUARD_AGAIN_SECONDS: Final = 0.1


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
        self._terminal: int | None = None
        self._ended: asyncio.Future[Ended] = self._loop.create_future()
        self._collected = asyncio.Event()

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        """Start it, writing to the descriptors given, else to ours. Raises CannotRunError."""
        if self._libc is not None:
            self._libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # Whoever started us may have blocked it.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        self._loop.add_signal_handler(signal.SIGCHLD, self._collect)
        # In the background of the terminal that the command has now, we say what there is to say all the same.
        for number in _OF_THE_TERMINAL:
            signal.signal(number, signal.SIG_IGN)
        self._terminal = _foreground_terminal()
        self._guard = _Guard()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - whoever calls this wants that command
                arguments,
                env=environment,
                stdout=stdout,
                stderr=stderr,
                process_group=0,
                preexec_fn=self._before_it_begins(os.getpid(), self._guard),  # noqa: PLW1509 - the one thread that there is
            )
        except OSError as error:
            self._guard.dismiss()
            self._take_the_terminal_back()
            raise CannotRunError(arguments[0], error) from error
        self._group = self._process.pid

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._ended.done()

    def pass_on(self, number: int) -> None:
        """Pass a signal on to it."""
        if self._group and not self._ended.done():
            try:
                os.kill(self._group, number)
            except ProcessLookupError:
                pass
            except PermissionError:
                self._problems.report("signal", f"signal {number} cannot be passed on: the command is another user's")

    async def wait(self) -> Ended:
        """Return how it ended."""
        return await asyncio.shield(self._ended)

    async def clear(self) -> None:
        """Kill what is left of it, and return when nothing is."""
        while self._kill_what_is_left():
            self._collected.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._collected.wait()
        if self._guard is not None:
            # Its own end would take its processor time just when all hurry to put the work back.
            self._guard.tell(0)
        self._take_the_terminal_back()

    def close(self) -> None:
        """Hear of no child any more: a loop that closes complains of signals that come meanwhile."""
        self._loop.remove_signal_handler(signal.SIGCHLD)
        if self._guard is not None:
            self._guard.dismiss()

    def _before_it_begins(self, parent: int, found: "_Guard") -> Callable[[], None]:
        libc, terminal = self._libc, self._terminal

        def before() -> None:
            # In the new process, before it becomes the command. What it begins must find the guard told already.
            found.tell(os.getpid())
            if libc is not None:
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
                if os.getppid() != parent:
                    # We were killed before the kernel knew.
                    os.kill(os.getpid(), signal.SIGKILL)
            if terminal is not None:
                # A group in the background would be stopped by every read from the terminal.
                with contextlib.suppress(OSError):
                    os.tcsetpgrp(terminal, os.getpid())
            # But for SIGTSTP: with a command that is suspended, nobody would be there to wake it.
            for number in (signal.SIGTTIN, signal.SIGTTOU):
                signal.signal(number, signal.SIG_DFL)

        return before

    def _collect(self) -> None:
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
                self._loop.call_later(GUARD_AGAIN_SECONDS, self._replace_guard)
        self._collected.set()

    def _replace_guard(self) -> None:
        if self.over:
            return
        try:
            self._guard = _Guard()
        except OSError as error:
            self._problems.report("no guard", f"there is no guard any more, and none can be started: {error}")
            self._loop.call_later(GUARD_AGAIN_SECONDS, self._replace_guard)
        else:
            self._guard.tell(self._group)
            self._problems.report("guard", "the guard was killed; there is a new one")

    def _kill_what_is_left(self) -> bool:
        """Kill the group, and all children but the guard; return whether there was anything."""
        children = self._children()
        for child in children:
            self._kill(os.kill, child)
        return self._kill(os.killpg, self._group) or bool(children)

    def _children(self) -> list[int]:
        """Return our children but the guard, where the system tells. What has lost its parent is one, too."""
        found: list[int] = []
        for of_a_thread in Path("/proc/self/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, of_a_thread.read_text().split())
        return [child for child in found if self._guard is None or child != self._guard.pid]

    def _kill(self, kill: Callable[[int, int], None], whom: int) -> bool:
        try:
            kill(whom, signal.SIGKILL)
        except ProcessLookupError:
            return False
        except PermissionError:
            # What took another user's rights: it works on, so it is not over.
            self._problems.report("rights", "some of the command's processes are another user's: waiting for their end")
        return True

    def _take_the_terminal_back(self) -> None:
        if self._terminal is not None:
            # For whoever called us, and shares our group.
            with contextlib.suppress(OSError):
                os.tcsetpgrp(self._terminal, os.getpgrp())
            self._terminal = None


class _Guard:
    """The process of `guard.py`."""

    def __init__(self) -> None:
        heard, self._said = os.pipe()
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            # Not by its path: whoever kills all processes with our name in them would kill it with us.
            [sys.executable, "-I", "-S", "-c", Path(guard.__file__).read_text(encoding="utf-8")],
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
