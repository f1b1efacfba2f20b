"""A heartbeater in a process for which somebody else beats."""

import asyncio
from typing import Any

import msgspec
import pytest

from liveness.client import Heartbeater
from liveness.embedded import NatsServer
from liveness.messages import Superseded
from tests.conftest import SOON
from tests.integration.beats import spying


@pytest.fixture(autouse=True)
def _supervised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVENESS_WORKER", "w1")
    monkeypatch.setenv("LIVENESS_INCARNATION", "outer")
    monkeypatch.setenv("LIVENESS_EPOCH", "7")


async def test_it_says_nothing(nats: NatsServer) -> None:
    """A second incarnation under the name would be another process's, and a goodbye would take what lives."""
    async with spying(nats.url) as spy:
        async with Heartbeater(nats.url, ttl=1, interval=0.01) as worker:
            assert (worker.worker, worker.incarnation, worker.epoch, worker.adopted) == ("w1", "outer", 7, True)
            assert await worker.welcome(SOON)
            assert worker.connected
        assert await spy.silent()
    assert worker.beats_sent == 0


async def test_it_hears_when_the_worker_is_given_up(nats: NatsServer) -> None:
    """What is told of the incarnation is told of it."""
    async with spying(nats.url) as spy, Heartbeater(nats.url, worker="w1") as worker:
        notice = Superseded(epoch=7, incarnation="outer", new_epoch=9, new_incarnation="outer")
        await spy.client.publish("liveness.superseded.w1", msgspec.json.encode(notice))
        async with asyncio.timeout(SOON):
            await worker.superseded.wait()
        assert (worker.superseded_epoch, worker.epoch) == (7, 9)


@pytest.mark.parametrize("own", [{"worker": "w2"}, {"worker": "w1", "incarnation": "mine"}])
async def test_a_worker_of_its_own_is_one(nats: NatsServer, own: dict[str, Any]) -> None:
    """With another name, or an incarnation of its own."""
    async with spying(nats.url) as spy:
        async with Heartbeater(nats.url, ttl=60, **own) as worker:
            assert (worker.adopted, worker.epoch) == (False, None)
            assert (await spy.beat()).incarnation == worker.incarnation != "outer"
        await spy.goodbye()
    assert spy.subjects == {f"liveness.{what}.{worker.worker}" for what in ("heartbeat", "goodbye")}


async def test_a_name_alone_is_only_a_name(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody beats for whoever has no incarnation."""
    monkeypatch.delenv("LIVENESS_INCARNATION")
    async with spying(nats.url) as spy, Heartbeater(nats.url, ttl=60) as worker:
        assert (worker.worker, worker.adopted, worker.epoch) == ("w1", False, None)
        await spy.beat()


async def test_an_epoch_that_is_no_number_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be fenced with it."""
    monkeypatch.setenv("LIVENESS_EPOCH", "seven")
    assert Heartbeater("nats://127.0.0.1:1").epoch is None


async def test_without_a_name_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """And says where one could come from."""
    monkeypatch.delenv("LIVENESS_WORKER")
    with pytest.raises(ValueError, match="give worker, or set LIVENESS_WORKER"):
        Heartbeater("nats://127.0.0.1:1")
