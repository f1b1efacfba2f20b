"""What systemd is told of the service, by sd_notify(3): that it is ready, how it is, that it lives, that it stops.

The protocol is a datagram to the socket that `$NOTIFY_SOCKET` names, so that no library is needed for it. Elsewhere
nobody is told anything.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Final

# Between two looks at how the service is.
LOOK_SECONDS: Final = 5.0
_MICROSECONDS: Final = 1_000_000


class Systemd:
    """Says so, where somebody listens. `environment` is that of the process."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        environment = os.environ if environment is None else environment
        place = environment.get("NOTIFY_SOCKET", "")
        # A name in the abstract namespace is written with an @.
        self._address: Final = f"\0{place[1:]}" if place.startswith("@") else place
        self._socket: Final = (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            if place
            else None
        )
        self._patience = _patience(environment)
        # What it was told last of each word.
        self._told: dict[str, str] = {}

    @property
    def interval(self) -> float:
        """Seconds between two words: half of what systemd bears, and no longer than a state may be out of date."""
        return min(LOOK_SECONDS, self._patience / 2) if self._patience else LOOK_SECONDS

    async def keep(self, *, ready: asyncio.Event, status: Callable[[], str], ills: Callable[[], Sequence[str]]) -> None:
        """Say how it is, as long as somebody listens: ready once `ready` is set, alive while there are no `ills`.

        Whoever is not told any more that the service lives ends it and starts it anew: if this loop hangs, or `ills()`
        says that a start would help.
        """
        while self._socket is not None:
            self._tell_once("STATUS", " ".join(status().split()))
            if ready.is_set():
                self._tell_once("READY", "1")
            if self._patience and not ills():
                self._tell("WATCHDOG=1")
            wait = asyncio.Event() if ready.is_set() else ready
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.interval):
                    await wait.wait()

    def stopping(self) -> None:
        """Say that the service is about to end, and nothing after it."""
        self._tell("STOPPING=1\nSTATUS=stopping")
        if self._socket is not None:
            self._socket.close()

    def _tell_once(self, word: str, value: str) -> None:
        if self._told.get(word) != value and self._tell(f"{word}={value}"):
            self._told[word] = value

    def _tell(self, message: str) -> bool:
        """Return whether it was taken; whatever was not is said again, and is no reason to wait or to fail."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return False
        return True


def _patience(environment: Mapping[str, str]) -> float:
    """Return after how many seconds of silence systemd ends the process; 0: it does not."""
    meant = environment.get("WATCHDOG_PID", "")
    if meant not in {"", str(os.getpid())}:
        return 0.0
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / _MICROSECONDS if text.isdecimal() else 0.0
