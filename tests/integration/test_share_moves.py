"""The workers are divided anew: nothing is taken from those that live, and what is dead goes back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import nats as nats_py
import pytest
from nats.aio.client import Client

from liveness.embedded import NatsServer
from liveness.service import Service
from liveness.settings import Settings
from tests.conftest import SOON, HostTables, look_again
from tests.integration.running import Serve
from tests.integration.shares import leads, remap

LIVING = [f"living-{number}" for number in range(30)]
DEAD = [f"dead-{number}" for number in range(6)]
TTL = 2.0
Divide = Callable[[int], "Division"]


class Fleet:
    """Workers that beat until they are told not to."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.names = [*LIVING, *DEAD]

    async def live(self) -> None:
        """Beat ten times in a ttl."""
        payload = msgspec.json.encode({"ttl": TTL})
        while True:
            for name in self.names:
                await self._client.publish(f"liveness.heartbeat.{name}", payload)
            await asyncio.sleep(TTL / 10)


@pytest.fixture
async def fleet(nats: NatsServer, host: HostTables) -> AsyncIterator[Fleet]:
    """All hold work."""
    client = await nats_py.connect(nats.url)
    fleet = Fleet(client)
    for name in fleet.names:
        await host.workflows(name)
    living = asyncio.create_task(fleet.live())
    yield fleet
    living.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await living
    await client.close()


class Division:
    """The services of one division, which can be stopped."""

    def __init__(self, settings: Callable[..., Settings], url: str, shares: int) -> None:
        self._stop = asyncio.Event()
        shards = [f"{index}/{shares}" for index in range(shares)] or [""]
        self.services = [Service(settings(nats_url=url, shard=shard, **QUICK)) for shard in shards]
        self._running: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start all."""
        self._running = [asyncio.create_task(service.run(self._stop)) for service in self.services]
        async with asyncio.timeout(SOON):
            for service in self.services:
                await service.started.wait()

    async def stop(self) -> None:
        """Stop all; again without effect."""
        self._stop.set()
        async with asyncio.timeout(SOON):
            await asyncio.gather(*self._running)


@pytest.fixture
async def divide(nats: NatsServer, settings: Callable[..., Settings]) -> AsyncIterator[Divide]:
    """Make the services of a division; all are stopped at the end."""
    made: list[Division] = []

    def division(shares: int) -> Division:
        made.append(Division(settings, nats.url, shares))
        return made[-1]

    yield division
    for one in made:
        await one.stop()


QUICK: dict[str, Any] = {"heartbeat_timeout": TTL, "storm_max_hold": 60.0}


async def granted(host: HostTables) -> None:
    """Wait until everybody has an epoch."""
    count = "SELECT count(*) FROM liveness.epoch WHERE ended_at IS NULL"
    async with asyncio.timeout(SOON):
        while await host.connection.fetchval(count) < len(LIVING) + len(DEAD):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(TTL / 20)


async def at_work(division: Division, host: HostTables) -> None:
    """Start a division, and wait until it leads and everybody has an epoch."""
    await division.start()
    await leads(*division.services)
    await granted(host)


async def buried(host: HostTables, fleet: Fleet) -> None:
    """Wait until the dead have nothing any more, and see that the living have what they had."""
    async with asyncio.timeout(SOON):
        # Nobody tells all that is put back, and services share this loop.
        while await host.count("PENDING") < len(DEAD):  # noqa: ASYNC110
            await asyncio.sleep(TTL / 20)
    assert await host.count("RUNNING") == len(LIVING)
    ended = await host.connection.fetch("SELECT worker FROM liveness.expiration ORDER BY worker")
    assert [row["worker"] for row in ended] == sorted(DEAD)
    assert len(fleet.names) == len(LIVING)


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2), (0, 2), (2, 0)])
async def test_all_stop_the_servers_divide_anew_and_the_next_start(
    nats: NatsServer, host: HostTables, divide: Divide, fleet: Fleet, before: int, after: int
) -> None:
    """Whoever died meanwhile is found by those who own it now, one ttl after they began to listen."""
    await remap(nats, before)
    former, new = divide(before), divide(after)
    await at_work(former, host)

    await former.stop()
    fleet.names = LIVING
    await remap(nats, after)
    await new.start()
    await leads(*new.services)
    await buried(host, fleet)


async def test_those_who_start_too_early_wait_and_take_nothing(
    nats: NatsServer, host: HostTables, divide: Divide, fleet: Fleet
) -> None:
    """They were deaf to all who were not theirs yet; that counts against nobody when it is their turn."""
    await remap(nats, 2)
    former, new = divide(2), divide(3)
    await at_work(former, host)
    await new.start()
    assert all(any("divided otherwise" in trouble for trouble in service.troubles()) for service in new.services)

    fleet.names = LIVING
    await remap(nats, 3)
    assert not any(service.parts is not None and service.parts.leadership.leading for service in new.services)
    await former.stop()
    await leads(*new.services)
    await buried(host, fleet)


async def test_without_a_pause_by_servers_that_do_not_divide_for_a_while(
    nats: NatsServer, host: HostTables, divide: Divide, fleet: Fleet
) -> None:
    """Everybody hears what is not divided, and takes what is its own: so the next can follow at once."""
    await remap(nats, 2)
    former, new = divide(2), divide(3)
    await at_work(former, host)

    await remap(nats, 0)
    await new.start()
    await former.stop()
    await leads(*new.services)
    fleet.names = LIVING
    await remap(nats, 3)
    await buried(host, fleet)


async def test_what_was_not_heard_while_others_led_counts_against_nobody(
    nats: NatsServer, host: HostTables, serve: Serve
) -> None:
    """A shard that waits for its turn does not know whether it hears everybody: it begins with a full ttl."""
    everybody = await serve()
    await host.workflows("w1")
    client = await nats_py.connect(nats.url)
    await client.publish("liveness.heartbeat.w1", b'{"ttl": 600}')
    async with asyncio.timeout(SOON):
        while not await host.connection.fetchval("SELECT count(*) FROM liveness.epoch"):
            await look_again()
    shards = [await serve(shard=f"{index}/2") for index in range(2)]
    (mine,) = [shard for shard in shards if shard.parts is not None and shard.parts.book.get("w1") is not None]
    assert mine.parts is not None
    lease = mine.parts.book.get("w1")
    assert lease is not None
    began = mine.parts.book.lines.deadline(lease)
    # Some of that time is used up.
    async with asyncio.timeout(SOON):
        while mine.parts.hearing.now < began - 600.0 + 0.5:
            await look_again()
    assert mine.parts.book.lines.deadline(lease) == began

    assert everybody.parts is not None
    await everybody.parts.leadership.step_down()
    everybody.parts.leadership._hears = lambda: False
    await leads(*shards)

    assert mine.parts.book.lines.deadline(lease) >= began + 0.5
    await client.close()
