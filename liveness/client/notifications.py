"""What a command says by sd_notify(3), to us instead of systemd."""

import shutil
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

# Where a process finds the socket and how often it has to say something; the third says for which process the second is
# meant, and is for none but the one that systemd had started.
SOCKET, INTERVAL, PROCESS = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
VARIABLES: Final = (SOCKET, INTERVAL, PROCESS)
_MICROSECONDS: Final = 1_000_000
# What libsystemd takes of one message.
_MOST_BYTES: Final = 4096


class Notifications:
    """A datagram socket of our own, which only our user can reach. Raises OSError when it cannot be made.

    Who is killed leaves it behind, in an own folder for temporary files.
    """

    def __init__(self) -> None:
        self._folder: Final = tempfile.mkdtemp(prefix="liveness-notify-")
        self._socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.path: Final = str(Path(self._folder, "socket"))
        self._socket.settimeout(0)
        try:
            self._socket.bind(self.path)
        except OSError as error:
            self.close()
            # Its own message for a path that is too long does not name it.
            raise OSError(error.errno, f"{error.strerror or error}: {self.path}") from error

    def fileno(self) -> int:
        """Return what to wait on."""
        return self._socket.fileno()

    def variables(self, patience: float) -> dict[str, str]:
        """Return what is in the environment of a process that has to say something within `patience` seconds."""
        return {SOCKET: self.path, INTERVAL: str(max(1, round(patience * _MICROSECONDS)))}

    def take(self) -> bool:
        """Take a message; return whether it says that there is progress."""
        try:
            # A descriptor that comes along (the barrier of `systemd-notify`) is closed by the kernel, as it has to be.
            message = self._socket.recv(_MOST_BYTES)
        except BlockingIOError:
            return False
        return b"WATCHDOG=1" in message.split(b"\n")

    def close(self) -> None:
        """Hear nothing any more, and leave nothing behind."""
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def without_notifications(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` without what is said in it about another's socket."""
    return {name: value for name, value in environment.items() if name not in VARIABLES}
