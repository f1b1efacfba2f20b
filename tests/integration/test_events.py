import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import nats as nats_py
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from liveness.client import Event, events
from liveness.embedded import NatsServer
from liveness.errors import CannotStartError
from liveness.eventdata import WorkerEnded, WorkflowReclaimed
from tests.conftest import delivered, look_again
from tests.integration.conftest import Logs

# Below the time after which a reader gives up a connection on which nothing comes.
SECONDS = 6
SUBJECTS = ["workflow.reclaimed", "task.reclaimed", "worker.expired", "worker.released", "worker.recovered"]
STREAM = api.StreamConfig(name="LIVENESS_EVENTS", subjects=[*SUBJECTS, "worker.promoted", "observed.>"])
WORK: dict[str, Any] = {
    "kind": "invoice",
    "queue": "default",
    "former_worker": "w1",
    "incarnation": "i1",
    "epoch": 4,
    "reason": "lapsed",
    "last_heartbeat_at": "2026-01-01T00:00:00Z",
    "lapsed_at": "2026-01-01T00:01:00Z",
    "reclaimed_at": "2026-01-01T00:01:01Z",
    "reclaim_count": 1,
}
WORKER: dict[str, Any] = {
    "worker": "w1",
    "incarnation": "i1",
    "epoch": 4,
    "reason": "lapsed",
    "ttl": 60,
    "last_heartbeat_at": None,
    "lapsed_at": None,
    "expired_at": "2026-01-01T00:01:01Z",
}


class Publisher:
    """Publishes as the service does, and looks at consumers."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.context: JetStreamContext = client.jetstream()

    async def reclaimed(self, number: int, subject: str = "workflow.reclaimed") -> None:
        """Publish that workflow `number` was reclaimed, in the event `number`."""
        await self.event(number, "workflow.reclaimed", WORK | {"workflow_id": str(number)}, subject)

    async def event(self, number: int, kind: str, data: object, subject: str | None = None) -> None:
        """Publish any event."""
        envelope = {
            "specversion": "1.0",
            "id": str(number),
            "source": "liveness",
            "type": kind,
            "subject": str(number),
            "time": "2026-01-01T00:01:01Z",
            "datacontenttype": "application/json",
            "data": data,
        }
        await self.context.publish(subject or kind, msgspec.json.encode(envelope), headers={"Nats-Msg-Id": str(number)})

    async def consumer(self, durable: str = "d") -> api.ConsumerInfo:
        """Return how far a reader is."""
        info: api.ConsumerInfo = await self.context.consumer_info("LIVENESS_EVENTS", durable)
        return info

    async def finished(self, durable: str = "d") -> int:
        """Return the number of the last event below which all are finished."""
        floor = (await self.consumer(durable)).ack_floor
        return floor.stream_seq if floor is not None else 0


async def soon(news: AsyncGenerator[Event, None]) -> Event:
    """Wait for the next event."""
    async with asyncio.timeout(SECONDS):
        return await anext(news)


@pytest.fixture
async def publisher(nats: NatsServer) -> AsyncIterator[Publisher]:
    """Yield a publisher that finds its way back after a restart, and the stream."""
    client = await nats_py.connect(
        nats.url, reconnect_time_wait=0, max_reconnect_attempts=-1, error_cb=_say_nothing
    )  # fmt: skip
    await client.jetstream().add_stream(STREAM)
    yield Publisher(client)
    await client.close()


async def _say_nothing(_: Exception) -> None:
    pass


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Yield what the client logs from here on."""
    taken = Logs()
    logger = logging.getLogger("liveness.client")
    logger.addHandler(taken)
    logger.setLevel(logging.INFO)
    yield taken
    logger.removeHandler(taken)


async def test_events_are_typed(nats: NatsServer, publisher: Publisher) -> None:
    """Each event comes in order, with its envelope and with data of its type, or as a dict if it has none here."""
    await publisher.reclaimed(1)
    await publisher.event(2, "worker.expired", WORKER)
    await publisher.event(3, "worker.promoted", {"to": "king"})
    async with aclosing(events(nats.url, durable="d")) as news:
        first, second, third = [await soon(news) for _ in range(3)]
    assert (first.id, first.type, first.subject, first.deliveries) == ("1", "workflow.reclaimed", "1", 1)
    assert (first.source, first.time) == ("liveness", "2026-01-01T00:01:01Z")
    assert isinstance(first.data, WorkflowReclaimed)
    assert (first.data.workflow_id, first.data.reason) == ("1", "lapsed")
    assert isinstance(second.data, WorkerEnded)
    assert second.data.worker == "w1"
    assert third.data == {"to": "king"}


async def test_event_is_finished_by_asking_for_the_next(nats: NatsServer, publisher: Publisher) -> None:
    """An event is acknowledged when its body is over, and not before."""
    await publisher.reclaimed(1)
    await publisher.reclaimed(2)
    async with aclosing(events(nats.url, durable="d", types=["workflow.reclaimed"], ack_wait=77)) as news:
        await soon(news)
        assert await publisher.finished() == 0
        config = (await publisher.consumer()).config
        assert (config.ack_wait, config.filter_subject) == (77, "workflow.reclaimed")
        await soon(news)
        assert await publisher.finished() == 1


async def test_break_gives_the_event_back(nats: NatsServer, publisher: Publisher) -> None:
    """A body that breaks off has its event again in the next run, at once, and those before it not."""
    await publisher.reclaimed(1)
    await publisher.reclaimed(2)
    async with aclosing(events(nats.url, durable="d", ack_wait=3600)) as news:
        async for event in news:
            if event.id == "2":
                break
    async with aclosing(events(nats.url, durable="d", ack_wait=3600)) as news:
        again = await soon(news)
    assert (again.id, again.deliveries) == ("2", 2)


async def test_break_without_closing_gives_the_event_back(nats: NatsServer, publisher: Publisher) -> None:
    """The bare loop gives its event back as well, only a moment later."""
    await publisher.reclaimed(1)
    settled = await publisher.client.subscribe("$JS.ACK.LIVENESS_EVENTS.d.>")
    await delivered(publisher.client)
    async with asyncio.timeout(SECONDS):
        async for _ in events(nats.url, durable="d", ack_wait=3600):
            break
    assert (await settled.next_msg(SECONDS)).data == b"-NAK"


async def test_exception_gives_the_event_back(nats: NatsServer, publisher: Publisher) -> None:
    """What the body raises comes out unchanged, and the event comes again."""
    await publisher.reclaimed(1)
    error = KeyError("the body's own")

    async def read() -> None:
        async with aclosing(events(nats.url, durable="d", ack_wait=3600)) as news:
            async for _ in news:
                raise error

    with pytest.raises(KeyError) as caught:
        await read()
    assert caught.value is error
    async with aclosing(events(nats.url, durable="d", ack_wait=3600)) as news:
        assert (await soon(news)).deliveries == 2


@pytest.mark.parametrize("work_on", [True, False])
async def test_cancellation_gives_the_event_back(nats: NatsServer, publisher: Publisher, *, work_on: bool) -> None:
    """A reader cancelled at its work has its event again; one cancelled while it waits misses nothing later."""
    if work_on:
        await publisher.reclaimed(1)
    pulled = await publisher.client.subscribe("$JS.API.CONSUMER.MSG.NEXT.LIVENESS_EVENTS.d")
    at_work = asyncio.Event()

    async def read() -> None:
        async with aclosing(events(nats.url, durable="d", ack_wait=3600)) as news:
            async for _ in news:
                at_work.set()
                await asyncio.Event().wait()

    before = asyncio.all_tasks()
    task = asyncio.create_task(read())
    async with asyncio.timeout(SECONDS):
        await (at_work.wait() if work_on else pulled.next_msg(SECONDS))
        task.cancel()
        await asyncio.wait({task})
    assert task.cancelled()
    assert asyncio.all_tasks() <= before
    if not work_on:
        await publisher.reclaimed(1)
    async with aclosing(events(nats.url, durable="d", ack_wait=3600)) as news:
        assert (await soon(news)).deliveries == (2 if work_on else 1)


async def test_durable_goes_on_where_it_stopped(nats: NatsServer, publisher: Publisher) -> None:
    """What one run finished does not come in the next, and another name has everything."""
    for number in (1, 2, 3):
        await publisher.reclaimed(number)
    async with aclosing(events(nats.url, durable="d")) as news:
        assert [(await soon(news)).id for _ in range(3)] == ["1", "2", "3"]
    async with aclosing(events(nats.url, durable="d")) as news:
        assert (await soon(news)).id == "3"
    async with aclosing(events(nats.url, durable="other")) as news:
        assert (await soon(news)).id == "1"


@pytest.mark.parametrize("payload", [b"", b"\xff\xfe", b'{"id": 1}', b"[" * 10_000])
async def test_what_is_no_event_is_passed_over(
    nats: NatsServer, publisher: Publisher, logs: Logs, payload: bytes
) -> None:
    """A message that is no event is logged, never comes again, and holds nobody up."""
    await publisher.context.publish("workflow.reclaimed", payload)
    await publisher.reclaimed(2)
    async with aclosing(events(nats.url, durable="d")) as news:
        assert (await soon(news)).id == "2"
        assert await publisher.finished() == 1
    await logs.until("message 1 of the stream is skipped for good")


async def test_headers_that_are_none(nats: NatsServer, publisher: Publisher) -> None:
    """Headers that end nats-py's reading hold nobody up either."""
    _, writer = await asyncio.open_connection("127.0.0.1", nats.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\nHPUB workflow.reclaimed 8 8\r\nNATS/1.0\r\n')
    await writer.drain()
    writer.close()
    async with asyncio.timeout(SECONDS):
        while (await publisher.context.stream_info("LIVENESS_EVENTS")).state.messages == 0:
            await look_again()
    await publisher.reclaimed(2)
    async with aclosing(events(nats.url, durable="d")) as news:
        assert (await soon(news)).id == "2"
        assert await publisher.finished() == 1


async def test_types_choose(nats: NatsServer, publisher: Publisher) -> None:
    """Only the wished types come, and a later run may wish others."""
    await publisher.reclaimed(1)
    await publisher.event(2, "worker.expired", WORKER)
    await publisher.event(3, "worker.promoted", {})
    await publisher.reclaimed(4)
    async with aclosing(events(nats.url, durable="d", types=["worker.expired", "worker.promoted"])) as news:
        assert [(await soon(news)).id for _ in range(2)] == ["2", "3"]
    async with aclosing(events(nats.url, durable="d", types=["workflow.reclaimed"])) as news:
        assert (await soon(news)).id == "4"
    async with aclosing(events(nats.url, durable="one", types=["worker.expired"])) as news:
        assert (await soon(news)).id == "2"
    async with aclosing(events(nats.url, durable="one")) as news:
        assert [(await soon(news)).id for _ in range(2)] == ["2", "3"]


async def test_observed_is_not_done(nats: NatsServer, publisher: Publisher) -> None:
    """What mode `observe` would have done comes only to those who ask for it."""
    await publisher.reclaimed(1, subject="observed.workflow.reclaimed")
    await publisher.reclaimed(2)
    async with aclosing(events(nats.url, durable="d")) as news:
        assert (await soon(news)).id == "2"
    for number, types in enumerate((None, ["workflow.reclaimed"])):
        async with aclosing(events(nats.url, durable=f"o{number}", types=types, observed=True)) as news:
            assert (await soon(news)).id == "1"


async def test_prefix_and_stream_of_others(nats: NatsServer, publisher: Publisher) -> None:
    """A deployment with its own prefix and stream is read from there."""
    await publisher.context.add_stream(name="MINE", subjects=["mine.>"])
    await publisher.reclaimed(1, subject="mine.workflow.reclaimed")
    async with aclosing(events(nats.url, durable="d", stream="MINE", event_prefix="mine")) as news:
        assert (await soon(news)).id == "1"


async def test_reader_that_nats_refuses(nats: NatsServer, publisher: Publisher) -> None:
    """A durable that is something else already is told in one line, and not waited for."""
    await publisher.context.add_consumer("LIVENESS_EVENTS", durable_name="d", deliver_subject="elsewhere")
    async with aclosing(events(nats.url, durable="d")) as news:
        with pytest.raises(CannotStartError, match=r"'d'.*no pull consumer.*choose"):
            await soon(news)


async def test_stream_that_appears_later(nats: NatsServer, logs: Logs) -> None:
    """A reader started before the service waits for its stream, and says so once."""
    async with asyncio.timeout(SECONDS), aclosing(events(nats.url, durable="d")) as news:
        first = asyncio.ensure_future(anext(news))
        await logs.until("waits for the stream 'LIVENESS_EVENTS'")
        client = await nats_py.connect(nats.url)
        asked = await client.subscribe("$JS.API.CONSUMER.INFO.LIVENESS_EVENTS.d")
        for _ in range(3):
            await asked.next_msg(SECONDS)
        await client.jetstream().add_stream(STREAM)
        await Publisher(client).reclaimed(1)
        assert (await first).id == "1"
        await client.close()
    assert len([line for line in logs.seen if "waits for" in line]) == 1


async def test_server_without_jetstream(tmp_path: Path, logs: Logs) -> None:
    """A server that cannot have the stream yet is waited for as well."""
    server = NatsServer(tmp_path / "nats", jetstream=False)
    await server.start()
    async with aclosing(events(server.url, durable="d")) as news:
        first = asyncio.ensure_future(anext(news))
        await logs.until("waits for the stream 'LIVENESS_EVENTS'")
        first.cancel()
        await asyncio.wait({first})
    await server.stop()


async def test_nats_that_appears_later(nats: NatsServer, publisher: Publisher, logs: Logs) -> None:
    """A reader started before NATS waits for it."""
    await publisher.reclaimed(1)
    await nats.stop()
    async with asyncio.timeout(SECONDS), aclosing(events(nats.url, durable="d")) as news:
        first = asyncio.ensure_future(anext(news))
        await logs.until("cannot connect")
        await nats.start()
        assert (await first).id == "1"
    assert len([line for line in logs.seen if "cannot connect" in line]) == 1


async def test_restart_while_waiting(nats: NatsServer, publisher: Publisher, logs: Logs) -> None:
    """An event published after a restart comes to a reader that waited since before."""
    pulled = await publisher.client.subscribe("$JS.API.CONSUMER.MSG.NEXT.LIVENESS_EVENTS.d")
    async with asyncio.timeout(SECONDS), aclosing(events(nats.url, durable="d")) as news:
        first = asyncio.ensure_future(anext(news))
        await pulled.next_msg(SECONDS)
        nats.kill()
        await logs.until("lost NATS")
        await nats.start()
        await delivered(publisher.client)
        await publisher.reclaimed(1)
        assert (await first).id == "1"


@pytest.mark.parametrize("crash", [False, True])
async def test_restart_while_working(nats: NatsServer, publisher: Publisher, *, crash: bool) -> None:
    """An event that is worked on over a restart is finished by the reader that has it."""
    await publisher.reclaimed(1)
    async with asyncio.timeout(SECONDS), aclosing(events(nats.url, durable="d", ack_wait=3600)) as news:
        assert (await soon(news)).id == "1"
        if crash:
            nats.kill()
        else:
            await nats.stop()
        await nats.start()
        await delivered(publisher.client)
        await publisher.reclaimed(2)
        second = await soon(news)
        if crash and second.id == "1":
            # A crash may cost the server the memory of having delivered it.
            second = await soon(news)
        assert (second.id, second.deliveries) == ("2", 1)
        assert await publisher.finished() == 1


async def test_consumer_that_was_deleted(
    nats: NatsServer, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader whose consumer is deleted, while it waits and while it works, makes it again and reads on."""
    # NATS does not always tell who waits; then the pull has to expire first.
    monkeypatch.setattr("liveness.client.consumer.PULL_SECONDS", 1.0)
    pulled = await publisher.client.subscribe("$JS.API.CONSUMER.MSG.NEXT.LIVENESS_EVENTS.d")
    async with asyncio.timeout(SECONDS), aclosing(events(nats.url, durable="d")) as news:
        first = asyncio.ensure_future(anext(news))
        await pulled.next_msg(SECONDS)
        # While somebody listens there, NATS does not say that nobody answers.
        await pulled.unsubscribe()
        await publisher.context.delete_consumer("LIVENESS_EVENTS", "d")
        await publisher.reclaimed(1)
        assert (await first).id == "1"
        await publisher.context.delete_consumer("LIVENESS_EVENTS", "d")
        # It begins anew with the oldest event: what came once may come again.
        assert (await soon(news)).id == "1"


async def test_slow_body_keeps_its_event(nats: NatsServer, publisher: Publisher) -> None:
    """A body that takes longer than `ack_wait` is not overtaken: nobody else gets its event."""
    await publisher.reclaimed(1)
    signs = await publisher.client.subscribe("$JS.ACK.LIVENESS_EVENTS.d.>")
    await delivered(publisher.client)
    async with asyncio.timeout(SECONDS), aclosing(events(nats.url, durable="d", ack_wait=0.6)) as news:
        assert (await soon(news)).deliveries == 1
        async with aclosing(events(nats.url, durable="d", ack_wait=0.6)) as others:
            other = asyncio.ensure_future(anext(others))
            # Three to an `ack_wait`: seven are more than two of them.
            for _ in range(7):
                assert (await signs.next_msg(SECONDS)).data == b"+WPI"
            assert not other.done()
            await publisher.reclaimed(2)
            assert (await other).id == "2"
        info = await publisher.consumer()
        assert info.num_redelivered == 0


async def test_signs_of_work_survive_a_restart(nats: NatsServer, publisher: Publisher) -> None:
    """A body that works on over an outage goes on telling so, on a connection of its own making."""
    await publisher.reclaimed(1)
    async with asyncio.timeout(SECONDS), aclosing(events(nats.url, durable="d", ack_wait=3)) as news:
        await soon(news)
        nats.kill()
        await nats.start()
        client = await nats_py.connect(nats.url)
        signs = await client.subscribe("$JS.ACK.LIVENESS_EVENTS.d.>")
        assert (await signs.next_msg(SECONDS)).data == b"+WPI"
        await client.close()


async def test_several_readers_share(nats: NatsServer, publisher: Publisher) -> None:
    """Two readers of one name have each event once between them."""
    for number in (1, 2):
        await publisher.reclaimed(number)
    async with (
        aclosing(events(nats.url, durable="d")) as here,
        aclosing(events(nats.url, durable="d")) as there,
    ):
        assert {(await soon(here)).id, (await soon(there)).id} == {"1", "2"}


async def test_stream_of_pulls_expires_quietly(
    nats: NatsServer, publisher: Publisher, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long time without events is no problem: the reader asks again and again, on one connection."""
    monkeypatch.setattr("liveness.client.consumer.PULL_SECONDS", 0.1)
    pulled = await publisher.client.subscribe("$JS.API.CONSUMER.MSG.NEXT.LIVENESS_EVENTS.d")
    async with asyncio.timeout(SECONDS), aclosing(events(nats.url, durable="d")) as news:
        first = asyncio.ensure_future(anext(news))
        for _ in range(4):
            await pulled.next_msg(SECONDS)
        await publisher.reclaimed(1)
        assert (await first).id == "1"
    assert logs.seen == []


async def test_server_that_stands_still(
    nats: NatsServer, publisher: Publisher, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that says nothing any more, not even that there is nothing, is left for a new connection."""
    monkeypatch.setattr("liveness.client.consumer.PULL_SECONDS", 0.1)
    monkeypatch.setattr("liveness.client.consumer.PATIENCE_SECONDS", 0.5)
    async with asyncio.timeout(SECONDS), aclosing(events(nats.url, durable="d")) as news:
        first = asyncio.ensure_future(anext(news))
        pulled = await publisher.client.subscribe("$JS.API.CONSUMER.MSG.NEXT.LIVENESS_EVENTS.d")
        await pulled.next_msg(SECONDS)
        nats.pause()
        await logs.until("lost NATS")
        nats.resume()
        await publisher.reclaimed(1)
        assert (await first).id == "1"
