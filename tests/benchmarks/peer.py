"""What a peer is: another server that can say who lives, measured beside us on the same machine."""

import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol, TypeVar

from liveness.embedded.server import EmbeddedServer
from liveness.embedded.temporary import TemporaryFolder
from tests.benchmarks.figures import Plan

# The ttl of a heartbeat whose end nobody waits for, seconds; the same as that of our own load.
TTL: Final = 10
# That of the keys whose end is waited for: the least that all peers know, in whole seconds.
SHORT_TTL: Final = 2

Server = TypeVar("Server", bound=EmbeddedServer)


class Peer(Protocol):
    """One of them. Its module's docstring says with which settings, and why."""

    @property
    def name(self) -> str:
        """As the table names it."""

    def missing(self) -> str | None:
        """Say what has to be installed for it, or None."""

    async def rate(self, plan: Plan) -> float:
        """Start it, and return how many heartbeats a second it has taken, flat out."""


class Expiring(Peer, Protocol):
    """A peer that tells when a key has ended for want of heartbeats."""

    async def lateness(self, plan: Plan) -> list[float]:
        """Start it, and return how long after the ttl each end was seen, seconds. It has nothing else to do."""


@asynccontextmanager
async def running(make: Callable[[Path], Server]) -> AsyncIterator[Server]:
    """Run the server that `make` makes for a folder, while the body runs."""
    folder = TemporaryFolder.make()
    server = make(folder.path / "server")
    try:
        await server.start()
        yield server
    finally:
        await server.stop()
        folder.remove()


def program(*names: str) -> Path | None:
    """Return the first of these programs that there is; some lie where an ordinary user's PATH does not lead."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    return None if found is None else Path(found)


def free_port() -> int:
    """Return a TCP port that nobody holds just now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
