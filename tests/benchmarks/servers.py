"""Servers for the benchmarks, in temporary folders."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from liveness.embedded import NatsServer
from liveness.embedded.temporary import TemporaryFolder


@asynccontextmanager
async def nats(*, jetstream: bool = False, config: str = "") -> AsyncIterator[NatsServer]:
    """Run a nats-server while the body runs."""
    folder = TemporaryFolder.make()
    server = NatsServer(folder.path / "nats", jetstream=jetstream, config=config)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
        folder.remove()


def port_of(url: str) -> int:
    """Return the port in a server's address."""
    port = urlsplit(url).port
    assert port is not None
    return port
