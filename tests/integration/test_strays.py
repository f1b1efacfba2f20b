"""Heartbeats that come otherwise than the services are divided: they count, and it is said."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import nats as nats_py
import pytest
from nats.aio.client import Client
from nats.js.errors import Error as JetStreamError

from liveness.embedded import NatsServer
from liveness.service import Service
from tests.conftest import SOON, HostTables, look_again
from tests.integration.running import Serve
from tests.integration.shares import NAMES, beat, known, mapped, owned


def strays(service: Service) -> list[str]:
    """Return what the service says of them."""
    return [trouble for trouble in service.troubles() if "not every server divides" in trouble]


async def test_a_shard_hears_what_a_server_does_not_divide(serve: Serve, client: Client) -> None:
    """Of its own workers; the others' beats are only the sign that the server lacks the mapping, and it says so."""
    service = await serve(shard="0/2")
    assert strays(service) == []
    await beat(client, *NAMES)
    await known(service, *owned(0))

    assert service.parts is not None
    assert len(service.parts.book) == len(owned(0))
    assert service.parts.intake.counts["stray"] == len(NAMES)
    assert strays(service)
    # It hears itself by the same way, so what is silent may be believed to be.
    before = service.parts.hearing.now
    async with asyncio.timeout(SOON):
        while service.parts.hearing.now <= before:
            await look_again()


async def test_it_is_not_said_for_ever(serve: Serve, client: Client) -> None:
    """Half a minute after the last of them the servers are as they should be."""
    service = await serve(shard="0/2")
    await beat(client, owned(0)[0])
    await known(service, owned(0)[0])
    assert strays(service)
    assert service.parts is not None
    assert service.parts.intake.strayed_at is not None
    service.parts.intake.strayed_at -= 31.0

    assert strays(service) == []


ACCOUNT = """
authorization { users: [ { user: svc, password: secret, permissions: {
  publish: [">"]
  subscribe: ["liveness.heartbeat.>", "liveness.goodbye.>", "liveness.hello.>", "liveness.api.>", "_INBOX.>"]
} } ] }
"""


async def test_an_account_that_may_not_listen_for_them_will_do_where_nobody_is_divided(
    serve: Serve, tmp_path: Path
) -> None:
    """Those who never heard of shards have nothing to mend before an upgrade."""
    server = NatsServer(tmp_path / "strict", config=ACCOUNT)
    await server.start()
    service = await serve(nats_url=server.url.replace("nats://", "nats://svc:secret@"))

    assert service.troubles() == []
    await server.stop()


class TestWhoOwnsEverybody:
    """A service that is no shard, on a server that divides."""

    @pytest.fixture
    async def nats(self, tmp_path: Path) -> AsyncIterator[NatsServer]:
        """A server that divides."""
        server = NatsServer(tmp_path / "nats", config=mapped(2))
        await server.start()
        yield server
        await server.stop()

    async def test_it_hears_all(self, serve: Serve, client: Client) -> None:
        """Itself, too: so servers may be made to divide before the service is replaced by shards."""
        service = await serve()
        await beat(client, *NAMES)
        await known(service, *NAMES)

        assert service.parts is not None
        assert service.parts.intake.counts["stray"] == len(NAMES)
        assert service.troubles() == []
        assert not service.parts.hearing.deaf(service.parts.clock())

    async def test_the_dead_lapse(self, serve: Serve, client: Client, host: HostTables) -> None:
        """Hearing time passes as ever."""
        await serve()
        (workflow,) = await host.workflows("w1")
        await beat(client, "w1", ttl=1.0)

        async with asyncio.timeout(SOON):
            while await host.state(workflow) != ("PENDING", None):
                await look_again()

    async def test_a_goodbye_that_looks_like_a_heartbeat_is_none(self, serve: Serve, client: Client) -> None:
        """Nobody lives because another one ends."""
        service = await serve()
        await client.publish("liveness.goodbye.1.heartbeat.y", b'{"incarnation": "a"}')
        await beat(client, "w1")
        await known(service, "w1")

        assert service.parts is not None
        assert service.parts.book.get("y") is None


class TestACluster:
    """Two servers, of which one lacks the mapping."""

    @pytest.fixture
    async def servers(self, tmp_path: Path) -> AsyncIterator[list[NatsServer]]:
        """One that divides and one that does not, which know each other."""
        with socket.socket() as one, socket.socket() as other:
            sockets = (one, other)
            for each in sockets:
                each.bind(("127.0.0.1", 0))
            ports = [each.getsockname()[1] for each in sockets]
        made = []
        for number, mapping in enumerate((mapped(2), "")):
            route = f"routes: ['nats://127.0.0.1:{ports[1 - number]}']"
            cluster = f"cluster {{ name: c, listen: '127.0.0.1:{ports[number]}', {route} }}\nserver_name: s{number}\n"
            made.append(NatsServer(tmp_path / f"nats{number}", config=cluster + mapping))
        await asyncio.gather(*(server.start() for server in made))
        await self.ready(made[0])
        yield made
        for server in made:
            await server.stop()

    @staticmethod
    async def ready(server: NatsServer) -> None:
        """Wait until the two have agreed who leads their streams."""
        client = await nats_py.connect(server.url)
        async with asyncio.timeout(SOON):
            while True:
                try:
                    await client.jetstream(timeout=1.0).add_stream(name="first", subjects=["first"])
                    break
                except (JetStreamError, TimeoutError):
                    continue
        await client.close()

    @pytest.fixture
    def nats(self, servers: list[NatsServer]) -> NatsServer:
        """The services are where it is divided."""
        return servers[0]

    async def test_who_lives_behind_a_server_that_does_not_divide_keeps_its_work(
        self, serve: Serve, servers: list[NatsServer], host: HostTables
    ) -> None:
        """Its shard hears itself, and so believes that who is silent is dead: it must not be deaf to them."""
        services = [await serve(shard=f"{index}/2") for index in range(2)]
        for name in (*NAMES, "gone"):
            await host.workflows(name)
        far = await nats_py.connect(servers[1].url)
        await beat(far, *NAMES, "gone", ttl=1.0)

        # For longer than their ttl: until the one that died has been given up.
        async with asyncio.timeout(SOON):
            while await host.count("RUNNING", "gone"):
                await beat(far, *NAMES, ttl=1.0)
                await look_again()
        await far.close()

        assert await host.count("RUNNING") == len(NAMES)
        assert all(strays(service) for service in services)
