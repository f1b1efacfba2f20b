"""What the beats say of the work, and a worker that is drained."""

import asyncio

import pytest

from liveness.client import DrainingError, Heartbeater
from liveness.client.holding import MOST_RUNNING_BYTES
from liveness.embedded import NatsServer
from liveness.messages import Goodbye, Heartbeat
from tests.conftest import SOON
from tests.integration.beats import FakeServer, Spy, spying


async def beat_with(spy: Spy, running: list[str] | None, progress: int | None = None) -> Heartbeat:
    """Wait for the beat that says this; one of before may be under way."""
    while ((beat := await spy.beat()).running, beat.progress) != (running, progress):
        pass
    return beat


async def test_the_beats_tell_what_is_held(nats: NatsServer) -> None:
    """And how it gets on; before anything is held nothing is said of it, and afterwards that it is nothing."""
    async with spying(nats.url) as spy, Heartbeater(nats.url, worker="w1", ttl=1, interval=0.02) as worker:
        await beat_with(spy, None)
        with worker.holding("a"):
            await beat_with(spy, ["a"])
            with worker.holding("b"):
                worker.progressed()
                await beat_with(spy, ["a", "b"], 1)
        assert worker.held == ()
        await beat_with(spy, [], 1)
        with worker.holding("x" * MOST_RUNNING_BYTES):
            await beat_with(spy, None, 1)


async def test_a_beat_that_the_server_would_refuse_says_less() -> None:
    """Its max_payload is an operator's; the beat comes all the same."""
    small = b'INFO {"server_id":"N","max_payload":300,"headers":true}\r\n'
    async with (
        FakeServer(lambda *_: small) as server,
        Heartbeater(server.url, worker="w1", ttl=1, interval=0.02) as worker,
    ):
        await server.next()
        with worker.holding("x" * 300):
            sent = worker.beats_sent
            while (heard := await server.next())[1].seq != sent + 3:
                pass
        assert (heard[0], heard[1].running) == (1, None)


async def test_a_drained_worker_beats_until_it_has_finished(nats: NatsServer) -> None:
    """Then it says goodbye, and once; whatever comes meanwhile is not begun."""
    async with spying(nats.url) as spy:
        async with Heartbeater(nats.url, worker="w1", incarnation="mine", ttl=1, interval=0.02) as worker:
            assert not worker.draining
            with worker.holding("a"):
                draining = asyncio.create_task(worker.drain())
                await asyncio.wait({draining}, timeout=0)
                assert worker.draining
                with pytest.raises(DrainingError), worker.holding("b"):
                    pass
                sent = worker.beats_sent
                while worker.beats_sent < sent + 5:
                    await spy.beat()
                assert not draining.done()
                assert (await spy.beat()).draining
            async with asyncio.timeout(SOON):
                await draining
            assert await spy.goodbye() == Goodbye(incarnation="mine")
            assert not worker.connected
        assert await spy.silent()


async def test_a_body_that_ends_while_it_drains(nats: NatsServer) -> None:
    """Both wait for the one goodbye."""
    async with spying(nats.url) as spy:
        async with Heartbeater(nats.url, worker="w1", incarnation="mine", ttl=60) as worker:
            draining = asyncio.create_task(worker.drain())
            await asyncio.wait({draining}, timeout=0)
        await draining
        assert await spy.goodbye() == Goodbye(incarnation="mine")


async def test_nothing_to_drain(nats: NatsServer) -> None:
    """Who was not entered says no goodbye."""
    with pytest.raises(RuntimeError, match="nothing to drain"):
        await Heartbeater(nats.url, worker="w1").drain()
