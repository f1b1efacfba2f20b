"""Sidecars that own a share of the workers each, on a nats-server that divides the heartbeats."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import nats as nats_py
import pytest
from nats.aio.client import Client

from liveness.bus import Bus
from liveness.embedded import NatsServer
from liveness.errors import CannotStartError
from liveness.messages import HelloAnswer
from liveness.service import Service
from liveness.share import share_of
from liveness.subjects import Subjects
from tests.conftest import SOON, HostTables, delivered
from tests.integration.running import News, Serve

NAMES = ["w1", "host-7.example.org", "wörker", "a.b.c.d", "x", "y", "zzz"]


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server with a mapping for two shards."""
    server = NatsServer(tmp_path / "nats", config=f"mappings = {{ {Subjects().mapping(2)} }}")
    await server.start()
    yield server
    await server.stop()


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
        while granted() != sorted(names):  # noqa: ASYNC110
            await asyncio.sleep(0)


def owned(index: int) -> list[str]:
    """Return the names of a share of two."""
    return [name for name in NAMES if share_of(f"liveness.heartbeat.{name}", 2) == index]


async def test_each_worker_is_heard_by_one_of_two(serve: Serve, client: Client) -> None:
    """Whatever dots and letters its name has; both lead, and neither hears the other's."""
    services = [await serve(shard=f"{index}/2") for index in range(2)]
    await beat(client, *NAMES)

    assert owned(0)
    assert owned(1)
    for index, service in enumerate(services):
        await known(service, *owned(index))
        assert service.parts is not None
        assert service.parts.leadership.leading


async def test_a_goodbye_and_a_hello_are_the_owners(serve: Serve, host: HostTables, client: Client, news: News) -> None:
    """The other one hears them, too, and neither answers nor acts."""
    services = [await serve(shard=f"{index}/2") for index in range(2)]
    for name in NAMES:
        answer = await client.request(f"liveness.hello.{name}", b'{"incarnation": "a"}', timeout=SOON)
        assert msgspec.json.decode(answer.data, type=HelloAnswer).epoch is not None
        (workflow,) = await host.workflows(name)
        await client.publish(f"liveness.goodbye.{name}", b'{"incarnation": "a"}')
        assert (await news.until("workflow.reclaimed")).subject == workflow
        assert await host.state(workflow) == ("PENDING", None)

    for index, service in enumerate(services):
        assert service.parts is not None
        assert service.parts.intake.counts["goodbyes"] == service.parts.intake.counts["hellos"] == len(owned(index))


async def test_a_sidecar_restores_and_sweeps_its_share_only(serve: Serve, host: HostTables) -> None:
    """What is another's is not even looked at."""
    for name in NAMES:
        await host.worker(name)
    service = await serve(shard="0/2")
    assert service.parts is not None

    assert sorted(lease.worker for lease in service.parts.book) == sorted(owned(0))
    silent = await service.parts.store.host.stale(-1.0)
    assert sorted(found.worker for found in silent) == sorted(owned(0))


async def test_postgres_has_the_same_hash(host: HostTables) -> None:
    """Of any name, and any number of shares."""
    for count in (1, 2, 7, 1000):
        for name in NAMES:
            subject = f"liveness.heartbeat.{name}"
            assert await host.connection.fetchval("SELECT liveness.share_of($1, $2)", subject, count) == share_of(
                subject, count
            )


async def test_a_mapping_for_another_number_of_shares_leaves_it_deaf(serve: Serve, client: Client) -> None:
    """It does not hear itself, so nobody lapses, and it says so."""
    service = await serve(shard="0/3")
    await beat(client, *NAMES)
    assert service.parts is not None
    hearing = service.parts.hearing
    async with asyncio.timeout(SOON):
        # Nobody tells when it is.
        while not hearing.deaf(service.parts.clock()):  # noqa: ASYNC110
            await asyncio.sleep(0)

    assert len(service.parts.book) == 0
    assert hearing.now == 0.0
    assert any("nothing is heard" in trouble or "not connected" in trouble for trouble in service.troubles())


async def test_a_beat_on_our_subject_of_anothers_worker_is_not_taken(serve: Serve, client: Client) -> None:
    """Whoever may publish past the mapping makes nobody ours."""
    service = await serve(shard="0/2")
    await client.publish(f"liveness.2.0.heartbeat.{owned(1)[0]}")
    await beat(client, owned(0)[0])
    await known(service, owned(0)[0])

    assert service.parts is not None
    assert service.parts.intake.counts["not_ours"] == 1


async def test_a_server_that_cannot_divide_is_refused(nats: NatsServer) -> None:
    """At the start, in a line that says which version it takes."""
    bus = Bus(nats.url, least_server=(99, 1))
    with pytest.raises(CannotStartError, match=r"older than 99\.1"):
        await bus.connect()
    await bus.close()


async def test_leaders_of_two_shares_are_two(serve: Serve, host: HostTables) -> None:
    """Each has a row of its own, and so has the service that owns everybody."""
    await serve(shard="0/2")
    await serve(shard="1/2")

    rows = await host.connection.fetch("SELECT share, term, holder IS NOT NULL AS held FROM liveness.leader ORDER BY 1")
    assert [tuple(row) for row in rows] == [("", 0, False), ("0/2", 1, True), ("1/2", 1, True)]


async def test_a_command_asks_the_shard_that_it_names(serve: Serve, nats: NatsServer) -> None:
    """Each shard's leader answers on a subject of its own."""
    await serve(shard="0/2")
    client = await nats_py.connect(nats.url)
    answer = await client.request("liveness.2.0.api.status", b"{}", timeout=SOON)
    await client.close()

    assert b"error" not in answer.data
