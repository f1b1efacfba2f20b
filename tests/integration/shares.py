"""What the tests of shares have in common: names, whose they are of two, and servers that divide."""

import asyncio
import os
import signal

import msgspec
import nats as nats_py
from nats.aio.client import Client

from liveness.embedded import NatsServer
from liveness.service import Service
from liveness.subjects import OWN, Subjects
from tests.conftest import SOON, delivered, look_again

NAMES = ["w1", "host-7.example.org", "wörker", "a.b.c.d", "x", "y", "zzz"]


def mapped(shares: int) -> str:
    """Return the configuration of a server that divides the heartbeats into so many shares; 0: that stops to."""
    return f"mappings = {{ {Subjects().mapping(shares)} }}\n" if shares else "mappings = {}\n"


def owned(index: int, of: int = 2) -> list[str]:
    """Return the names of a share."""
    return [name for name in NAMES if Subjects().hash_of(name) % of == index]


async def beat(client: Client, *names: str, ttl: float = 600.0) -> None:
    """Let workers beat."""
    for name in names:
        await client.publish(f"liveness.heartbeat.{name}", msgspec.json.encode({"ttl": ttl}))
    await delivered(client)


async def known(service: Service, *names: str) -> None:
    """Wait until the service has leases with an epoch of these, and of nobody else."""

    def granted() -> list[str]:
        assert service.parts is not None
        return sorted(lease.worker for lease in service.parts.book if lease.epoch is not None)

    async with asyncio.timeout(SOON):
        # Nobody tells when a lease has its epoch.
        while granted() != sorted(names):
            await look_again()


async def leads(*services: Service) -> None:
    """Wait until these lead."""
    async with asyncio.timeout(SOON):
        # Nobody tells when one does.
        while not all(one.parts is not None and one.parts.leadership.leading for one in services):
            await look_again()


async def remap(server: NatsServer, shares: int) -> None:
    """Have a server that runs divide into so many shares, or not at all; return when it does."""
    (server.folder / "nats.conf").write_text(mapped(shares))
    os.kill(server.pid, signal.SIGHUP)
    heard = asyncio.Event()

    async def note(_message: object) -> None:
        heard.set()

    client = await nats_py.connect(server.url)
    await client.subscribe(
        f"liveness.{shares}.*.heartbeat.{OWN}remap" if shares else f"liveness.heartbeat.{OWN}remap", cb=note
    )
    async with asyncio.timeout(SOON):
        while not heard.is_set():
            await client.publish(f"liveness.heartbeat.{OWN}remap")
            await delivered(client)
    await client.close()
