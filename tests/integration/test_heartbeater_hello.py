"""What a heartbeater makes of its hello: the epoch, a refusal, and nobody there to answer."""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import nats as nats_py
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from liveness.client import Heartbeater, heartbeater, life
from liveness.embedded import NatsServer
from liveness.messages import Goodbye, Hello, HelloAnswer, Superseded
from tests.conftest import SOON, HostTables, delivered
from tests.integration.beats import spying
from tests.integration.running import Serve


class Desk:
    """Takes hellos as a service does; a test answers them, or not."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._taken: asyncio.Queue[Msg] = asyncio.Queue()

    async def open(self) -> None:
        """Listen, and return once the server knows it."""
        await self._client.subscribe("liveness.hello.w1", cb=self._taken.put)
        await delivered(self._client)

    @property
    def waiting(self) -> int:
        """How many hellos came that nobody has looked at."""
        return self._taken.qsize()

    async def next(self) -> tuple[Hello, Callable[[bytes], "asyncio.Future[None]"]]:
        """Wait for the next hello; return it, and how to answer it."""
        async with asyncio.timeout(SOON):
            message = await self._taken.get()

        def answer(payload: bytes) -> "asyncio.Future[None]":
            return asyncio.ensure_future(message.respond(payload))

        return msgspec.json.decode(message.data, type=Hello), answer


@pytest.fixture
async def desk(nats: NatsServer) -> AsyncIterator[Desk]:
    """Where hellos come in."""
    client = await nats_py.connect(nats.url)
    desk = Desk(client)
    await desk.open()
    yield desk
    await client.close()


def answer_to(hello: Hello, epoch: int | None, error: str | None = None) -> bytes:
    """Return an answer as the service gives it."""
    return msgspec.json.encode(HelloAnswer(worker="w1", incarnation=hello.incarnation, epoch=epoch, error=error))


async def test_the_epoch_is_known_once_it_is_entered(serve: Serve, host: HostTables, nats: NatsServer) -> None:
    """And what a former process of the name held is back by then."""
    await serve()
    (workflow,) = await host.workflows("w1")
    async with Heartbeater(nats.url, worker="w1", ttl=60) as worker:
        assert await worker.welcome(SOON)
        assert worker.epoch == await host.connection.fetchval(
            "SELECT epoch FROM liveness.epoch WHERE worker = 'w1' AND ended_at IS NULL"
        )
        assert await host.state(workflow) == ("PENDING", None)
        assert worker.identity == {
            "LIVENESS_WORKER": "w1",
            "LIVENESS_INCARNATION": worker.incarnation,
            "LIVENESS_EPOCH": str(worker.epoch),
        }


async def test_it_does_not_wait_where_nobody_is_there_to_answer(nats: NatsServer) -> None:
    """The server says so at once; it is known by its beats, and has no epoch."""
    async with Heartbeater(nats.url, worker="w1", ttl=60) as worker:
        # Answered by "no responders": the event is set, and no time has to pass.
        assert not await worker.welcome(SOON)
        assert (worker.epoch, worker.refusal, worker.beats_sent) == (None, None, 1)
        assert "LIVENESS_EPOCH" not in worker.identity


async def test_it_asks_again_until_it_is_answered(
    nats: NatsServer, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same incarnation and the uptime of now; and not any more when it was."""
    monkeypatch.setattr(heartbeater, "ENTER_SECONDS", 0.05)
    monkeypatch.setattr(life, "GREET_AGAIN_SECONDS", 0.05)
    async with spying(nats.url) as spy, Heartbeater(nats.url, worker="w1", ttl=1, interval=0.05) as worker:
        first, _ = await desk.next()
        second, answer = await desk.next()
        assert worker.epoch is None
        assert (first.incarnation, first.probe) == (second.incarnation, True) == (worker.incarnation, True)
        assert (first.uptime or 0.0) < (second.uptime or 0.0)
        await answer(answer_to(second, 7))
        await worker.greeted.wait()
        assert worker.epoch == 7
        # One may have been under way.
        before = desk.waiting
        for _ in range(5):
            await spy.beat()
        assert desk.waiting <= before + 1


async def test_a_refusal_is_known(nats: NatsServer, desk: Desk) -> None:
    """A newer process bears the name: it is told what it is told when its epoch is over."""
    entering = asyncio.create_task(Heartbeater(nats.url, worker="w1", ttl=60).__aenter__())
    hello, answer = await desk.next()
    await answer(answer_to(hello, None, "a newer incarnation of w1 was heard"))
    worker = await entering
    assert await worker.welcome(SOON)
    assert (worker.epoch, worker.refusal) == (None, "a newer incarnation of w1 was heard")
    assert worker.superseded.is_set()
    await worker.__aexit__(None, None, None)


# One is another incarnation's.
OTHERS = msgspec.json.encode(HelloAnswer(worker="w1", incarnation="another", epoch=7))


@pytest.mark.parametrize("answer", [b"", b"not JSON", b'{"epoch": "7"}', b"\xff\xfe", b"[" * 10_000, OTHERS])
async def test_an_answer_that_is_none_is_no_answer(nats: NatsServer, desk: Desk, answer: bytes) -> None:
    """Whoever gave it: the worker goes on."""
    entering = asyncio.create_task(Heartbeater(nats.url, worker="w1", ttl=60).__aenter__())
    _, say = await desk.next()
    await say(answer)
    worker = await entering
    assert not await worker.welcome(SOON)
    assert (worker.epoch, worker.refusal) == (None, None)
    assert not worker.superseded.is_set()
    await worker.__aexit__(None, None, None)


async def test_the_epoch_changes_when_a_life_is_over(nats: NatsServer, desk: Desk) -> None:
    """The notice brings the number of the next one, and that is what to fence with from then on."""
    client = await nats_py.connect(nats.url)
    entering = asyncio.create_task(Heartbeater(nats.url, worker="w1", ttl=60).__aenter__())
    hello, answer = await desk.next()
    await answer(answer_to(hello, 7))
    worker = await entering
    await worker.welcome(SOON)
    notice = Superseded(epoch=7, incarnation=worker.incarnation, new_epoch=9, new_incarnation=worker.incarnation)
    await client.publish("liveness.superseded.w1", msgspec.json.encode(notice))
    async with asyncio.timeout(SOON):
        await worker.superseded.wait()
    assert (worker.superseded_epoch, worker.epoch) == (7, 9)
    await worker.__aexit__(None, None, None)
    await client.close()


async def test_the_epoch_of_whoever_replaced_it_is_not_its_own(nats: NatsServer, desk: Desk) -> None:
    """It would pass for the newer process, whose work it must not touch."""
    client = await nats_py.connect(nats.url)
    entering = asyncio.create_task(Heartbeater(nats.url, worker="w1", ttl=60).__aenter__())
    hello, answer = await desk.next()
    await answer(answer_to(hello, 7))
    worker = await entering
    await worker.welcome(SOON)
    notice = Superseded(epoch=7, incarnation=worker.incarnation, new_epoch=9, new_incarnation="newer")
    await client.publish("liveness.superseded.w1", msgspec.json.encode(notice))
    async with asyncio.timeout(SOON):
        await worker.superseded.wait()
    assert (worker.superseded_epoch, worker.epoch) == (7, 7)
    await worker.__aexit__(None, None, None)
    await client.close()


async def test_an_older_epoch_that_is_told_late_changes_nothing(nats: NatsServer, desk: Desk) -> None:
    """What is fenced with it would pass for the life that is over."""
    client = await nats_py.connect(nats.url)
    entering = asyncio.create_task(Heartbeater(nats.url, worker="w1", ttl=60).__aenter__())
    hello, answer = await desk.next()
    worker = await entering
    notice = Superseded(epoch=7, incarnation=worker.incarnation, new_epoch=9, new_incarnation=worker.incarnation)
    await client.publish("liveness.superseded.w1", msgspec.json.encode(notice))
    async with asyncio.timeout(SOON):
        await worker.superseded.wait()
        await answer(answer_to(hello, 7))
        await worker.greeted.wait()
    assert worker.epoch == 9
    await worker.__aexit__(None, None, None)
    await client.close()


@pytest.mark.parametrize("how", [{"exit_code": 3}, {"signal": 9}])
async def test_a_goodbye_can_be_a_certificate(nats: NatsServer, how: dict[str, int]) -> None:
    """For whoever beats for another process, and saw how that ended."""
    async with spying(nats.url) as spy, Heartbeater(nats.url, worker="w1", incarnation="mine", ttl=60) as worker:
        worker.died(**how)
        leaving = asyncio.create_task(worker.__aexit__(None, None, None))
        assert await spy.goodbye() == msgspec.structs.replace(Goodbye(incarnation="mine"), **how)
        await leaving
