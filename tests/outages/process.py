"""A program as a process of its own, its output in a file, and the signals that hurt it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

# Nothing tells another process's end without blocking.
LOOK_SECONDS: Final = 0.01
STOP_SECONDS: Final = 10.0


class Process:
    """One run of one program. The kernel kills it when the thread that started it ends, where it can."""

    def __init__(
        self, command: Sequence[str | Path], log: Path, environment: Mapping[str, str], inside: Sequence[str] = ()
    ) -> None:
        self.log: Final = log
        self.paused = False
        self.hurt = False
        """Whether its end is our doing."""
        # A test run that is killed leaves nobody behind.
        bound = ["setpriv", "--pdeathsig", "KILL"] if sys.platform == "linux" else []
        with log.open("ab") as output:
            self._child: Final = subprocess.Popen(
                [*inside, *bound, sys.executable, *command],
                env=os.environ | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self.began: Final = time.time()
        self.ended: float | None = None
        """When it was killed, or was found to have ended: no sooner than it was alive for the last time."""

    @property
    def pid(self) -> int:
        """Its number."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended, paused or not."""
        if self._child.poll() is None:
            return self.ended is None
        if self.ended is None:
            self.ended = time.time()
        return False

    @property
    def exit_code(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._child.poll()

    def kill(self) -> None:
        """End it with SIGKILL, paused or not."""
        if self.running:
            self.hurt = True
            self.ended = time.time()
            self._child.kill()

    def pause(self) -> None:
        """Freeze it with SIGSTOP."""
        if self.running:
            self._child.send_signal(signal.SIGSTOP)
            self.paused = True

    def resume(self) -> None:
        """Let it go on."""
        if self.running:
            self._child.send_signal(signal.SIGCONT)
        self.paused = False

    async def gone(self, seconds: float = STOP_SECONDS) -> int:
        """Wait for its end and return the exit code; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            while (code := self._child.poll()) is None:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(LOOK_SECONDS)
        if self.ended is None:
            self.ended = time.time()
        return code

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop it in good order and return the exit code; raises TimeoutError when it does not end."""
        if self.running:
            self.hurt = True
            self.resume()
            self._child.send_signal(number)
        return await self.gone()

    def lines(self) -> list[str]:
        """What it has said so far."""
        return self.log.read_text(errors="replace").splitlines()
