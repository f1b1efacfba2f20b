"""The claim on a server's folder: held while any process of that server lives."""

import asyncio
import fcntl
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from liveness.errors import EmbeddedError

# Postgres ends within five seconds of an immediate shutdown; twice that leaves room for a busy machine.
WAIT_SECONDS: Final = 10.0
# Short beside the start of a server, long beside one attempt at the lock.
POLL_SECONDS: Final = 0.01


def process_exists(pid: int) -> bool:
    """Say whether a process of that number exists, whoever owns it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class FolderClaim:
    """An exclusive lock on a folder, which a server inherits with the open file.

    The kernel frees it when the last process of the server has ended, however it ended. So it also tells
    when the children of a killed server are gone, which no pid file could.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor: Final = descriptor

    @classmethod
    def attempt(cls, folder: Path) -> Self | None:
        """Claim the folder if nobody else does; raises OSError when the folder cannot be written."""
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        return cls(descriptor)

    @classmethod
    async def take(cls, folder: Path) -> Self:
        """Claim the folder, waiting up to ten seconds for the end of a server whose owner is gone.

        Raises EmbeddedError when a live process uses the folder or the left-over server does not end.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        told: set[int] = set()
        while (claim := cls.attempt(folder)) is None:
            owner, server, stop_signal = _holder(folder)
            if owner not in (0, os.getpid()) and process_exists(owner):
                raise EmbeddedError(
                    f"the folder {folder} is in use by process {owner}: stop that process or choose another folder"
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"a server in the folder {folder} (pid {server or 'unknown'}) did not end in {WAIT_SECONDS:g} s:"
                    " stop it by hand"
                )
            # Only where the kernel does not end servers with their owner. Elsewhere the number could belong to
            # somebody else, for instance when two containers share the folder.
            if sys.platform != "linux" and server and server not in told:
                told.add(server)
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(server, stop_signal)
            await asyncio.sleep(POLL_SECONDS)
        return claim

    def record(self, server: int, stop_signal: signal.Signals) -> None:
        """Write down who owns the server, for the owner that finds it left over."""
        os.ftruncate(self.descriptor, 0)
        os.pwrite(self.descriptor, f"{os.getpid()} {server} {stop_signal.value}\n".encode(), 0)

    def release(self) -> None:
        """Let go of this process's side; a running server still holds its own."""
        os.close(self.descriptor)


def _holder(folder: Path) -> tuple[int, int, int]:
    """Return the owner's pid, the server's pid and the signal that stops it; zeros when unknown."""
    try:
        owner, server, stop_signal = (int(word) for word in (folder / "lock").read_text().split())
    except (OSError, ValueError):
        return 0, 0, 0
    return owner, server, stop_signal
