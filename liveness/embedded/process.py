"""A server's process: a child that ends when this process ends."""

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from liveness.embedded.claim import POLL_SECONDS, FolderClaim
from liveness.errors import EmbeddedError

# From <linux/prctl.h>: "signal me when my parent's thread ends".
PR_SET_PDEATHSIG: Final = 1
# Loaded before any fork: between fork and exec nothing may be imported or opened.
LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
# An orderly shutdown writes a checkpoint; beyond this a server hangs and nobody would wait for it.
STOP_SECONDS: Final = 10.0
# Enough to hold Postgres's FATAL, DETAIL and HINT.
QUOTED_LINES: Final = 6
# Everything else stays out: it may hold secrets, and the server may run as another account.
PASSED_VARIABLES: Final = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Account:
    """The user and group that a process drops to."""

    user: int
    group: int


def environment() -> dict[str, str]:
    """Return the few variables that a server gets to see."""
    passed = {name: os.environ[name] for name in PASSED_VARIABLES if name in os.environ}
    # English messages and UTC, whatever the machine is set to; it also spares initdb a search for the zone.
    return passed | {"LC_ALL": "C", "TZ": "UTC"}


def _end_with(parent: int, death_signal: signal.Signals) -> Callable[[], None] | None:
    """Return what the child runs between fork and exec, or None where the kernel offers nothing."""
    if LIBC is None:
        return None
    prctl = LIBC.prctl

    def ask_kernel() -> None:
        # The parent may have ended before the request was made, and then no signal would ever come.
        if prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(1)

    return ask_kernel


class ServerProcess:
    """One run of one program: its pid, its output and its end.

    On Linux the kernel ends it when the *thread* that made this object ends: start servers from a thread that
    lives as long as they shall. Its output is appended to `log`.
    Raises EmbeddedError when the program cannot be executed.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        claim: FolderClaim,
        stop_signal: signal.Signals,
        death_signal: signal.Signals,
        account: Account | None = None,
        folder: Path | None = None,
    ) -> None:
        self.ending = False
        self._log: Final = log
        self._log_start: Final = log.stat().st_size if log.exists() else 0
        self._stop_signal: Final = stop_signal
        try:
            with log.open("ab") as output:
                self._child: Final = subprocess.Popen(  # noqa: S603 - the command is our own
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=folder,
                    env=environment(),
                    pass_fds=(claim.descriptor,),
                    # Its own group, so that Ctrl-C reaches the owner alone; but the owner's session, so that
                    # the kernel continues a paused server when its owner ends.
                    process_group=0,
                    user=None if account is None else account.user,
                    group=None if account is None else account.group,
                    extra_groups=None if account is None else [],
                    preexec_fn=_end_with(os.getpid(), death_signal),  # noqa: PLW1509 - one system call, no lock
                )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedError(f"cannot run {command[0]}: {error}") from error
        claim.record(self._child.pid, stop_signal)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._child.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal, or None while it runs."""
        return self._child.poll()

    def last_lines(self) -> str:
        """Return the end of this run's output as one line."""
        with self._log.open("rb") as file:
            file.seek(self._log_start)
            lines = file.read().decode(errors="replace").splitlines()
        return " | ".join(line.strip() for line in lines[-QUOTED_LINES:] if line.strip()) or "no output"

    def signal_all(self, number: signal.Signals) -> None:
        """Signal the process and its children; nothing happens when it has ended."""
        if self.exit_code is not None:
            return
        if number == signal.SIGKILL:
            self.ending = True
        # Frozen, it starts no child that would be missed.
        self._child.send_signal(signal.SIGSTOP)
        for child in _children(self.pid):
            with suppress(ProcessLookupError):
                os.kill(child, number)
        self._child.send_signal(number)

    async def wait(self, seconds: float) -> int | None:
        """Wait at most `seconds` for the end; return the exit code, or None when it still runs."""
        deadline = time.monotonic() + seconds
        while (code := self.exit_code) is None and time.monotonic() < deadline:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(POLL_SECONDS)
        return code

    async def break_off(self) -> None:
        """End it with SIGKILL and wait until it has ended, at most ten seconds."""
        self.signal_all(signal.SIGKILL)
        await self.wait(STOP_SECONDS)

    async def stop(self) -> None:
        """Stop it in good order, or with SIGKILL when it has not ended after ten seconds."""
        self.signal_all(signal.SIGCONT)
        if self.exit_code is None:
            self._child.send_signal(self._stop_signal)
        if await self.wait(STOP_SECONDS) is None:
            await self.break_off()


def _children(parent: int) -> list[int]:
    """Return the pids of a process's children; Postgres puts each in a session of its own, so no group has them."""
    if sys.platform == "linux":
        table = (stat for entry in Path("/proc").iterdir() if entry.name.isdigit() and (stat := _stat(entry)))
    else:
        listing = subprocess.run(["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True)
        table = ((int(pid), int(above)) for pid, above in map(bytes.split, listing.stdout.splitlines()))
    return [pid for pid, above in table if above == parent]


def _stat(entry: Path) -> tuple[int, int] | None:
    """Return the pid and the parent's pid of a process in /proc, or None when it has just ended."""
    try:
        # The name stands in brackets and may itself hold spaces and brackets.
        fields = (entry / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return int(entry.name), int(fields[1])
