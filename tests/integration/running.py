"""The whole service in this process, on real servers, for tests: started, spoken to, and listened to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import msgspec
import nats as nats_py
import pytest
from nats.aio.client import Client

from liveness.client import Event, events
from liveness.embedded import NatsServer
from liveness.service import Service
from liveness.settings import Settings
from tests.conftest import SOON, delivered

Serve = Callable[..., Awaitable[Service]]


@pytest.fixture
async def serve(nats: NatsServer, settings: Callable[..., Settings]) -> AsyncIterator[Serve]:
    """Start services on the fresh servers; all are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def started(**overrides: Any) -> Service:
            service, stop = Service(settings(**{"nats_url": nats.url} | overrides)), asyncio.Event()
            running = asyncio.create_task(service.run(stop))

            async def end() -> None:
                stop.set()
                await running

            stack.push_async_callback(end)
            waiting = asyncio.create_task(service.started.wait())
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if running.done():
                running.result()
            return service

        yield started


@pytest.fixture
async def client(nats: NatsServer) -> AsyncIterator[Client]:
    """A plain client: a worker that knows nothing of this project."""
    connected = await nats_py.connect(nats.url)
    yield connected
    await connected.close()


@pytest.fixture
async def news(nats: NatsServer) -> AsyncIterator["News"]:
    """Everything that subscribers receive, in its order."""
    listening = News(nats.url)
    yield listening
    await listening.close()


class News:
    """A durable subscriber, read from the moment it is first asked."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = AsyncExitStack()
        self._source: Any = None

    async def next(self) -> Event:
        """Wait for the next event."""
        if self._source is None:
            self._source = await self._stack.enter_async_context(aclosing(events(self._url, durable="test")))
        async with asyncio.timeout(SOON):
            event: Event = await anext(self._source)
        return event

    async def until(self, event_type: str) -> Event:
        """Wait for the next event of this type."""
        while (event := await self.next()).type != event_type:
            pass
        return event

    async def close(self) -> None:
        """Stop reading."""
        await self._stack.aclose()


async def hello(client: Client, worker: str, **fields: Any) -> Any:
    """Say hello as a worker does, and return the answer."""
    reply = await client.request(f"liveness.hello.{worker}", msgspec.json.encode(fields), timeout=SOON)
    return msgspec.json.decode(reply.data)


async def ask(client: Client, verb: str, **request: Any) -> Any:
    """Ask the service as a command does."""
    reply = await client.request(f"liveness.api.{verb}", msgspec.json.encode(request), timeout=SOON)
    return msgspec.json.decode(reply.data)


async def beat(client: Client, worker: str, **fields: Any) -> None:
    """Publish one heartbeat, and see that the server has it."""
    await client.publish(f"liveness.heartbeat.{worker}", msgspec.json.encode(fields) if fields else b"")
    await delivered(client)
