"""The bus against a real nats-server that is killed, stopped and hostile."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats as nats_py
import pytest
from nats.js.api import StreamConfig

from liveness.bus import Bus
from liveness.embedded import NatsServer
from liveness.errors import CannotStartError, NoServiceError, SettingsError
from tests.conftest import SOON


class Ear:
    """A bus that notes what it hears and when it could not."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(url)
        self.heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.ups, self.downs = asyncio.Event(), asyncio.Event()
        self.bus.subscribe("test.>", lambda subject, payload, _: self.heard.put_nowait((subject, payload)))
        self.bus.on_up, self.bus.on_down = self.ups.set, self.downs.set


@pytest.fixture
async def ear(nats: NatsServer) -> AsyncIterator[Ear]:
    """A connected bus that is kept."""
    made = Ear(nats.url)
    await made.bus.connect()
    keeping = asyncio.create_task(made.bus.keep())
    yield made
    keeping.cancel()
    await asyncio.wait({keeping})
    await made.bus.close()


async def say(server: NatsServer, subject: str, payload: bytes = b"") -> None:
    """Publish from a client of its own."""
    client = await nats_py.connect(server.url)
    await client.publish(subject, payload)
    await client.flush()
    await client.close()


async def test_what_is_published_is_heard(nats: NatsServer, ear: Ear) -> None:
    """On this connection."""
    await say(nats, "test.a", b"1")

    async with asyncio.timeout(SOON):
        assert await ear.heard.get() == ("test.a", b"1")


@pytest.mark.parametrize("fault", ["kill", "stop"])
async def test_a_server_that_comes_back_is_heard_again(nats: NatsServer, ear: Ear, fault: str) -> None:
    """Down and up are told, and the subscription stands again."""
    ear.ups.clear()
    if fault == "kill":
        nats.kill()
    else:
        await nats.stop()
    async with asyncio.timeout(SOON):
        await ear.downs.wait()
        assert not ear.bus.connected
        await nats.start()
        await ear.ups.wait()
        await say(nats, "test.b")
        assert await ear.heard.get() == ("test.b", b"")
    assert sum(ear.bus.faults.values()) == 1


async def test_a_server_that_hangs_is_noticed(nats: NatsServer, ear: Ear) -> None:
    """A stopped process keeps the connection open and answers nothing."""
    ear.ups.clear()
    nats.pause()
    try:
        async with asyncio.timeout(SOON):
            await ear.downs.wait()
    finally:
        nats.resume()
    async with asyncio.timeout(SOON):
        await ear.ups.wait()
        await say(nats, "test.c")
        assert await ear.heard.get() == ("test.c", b"")


async def test_a_read_loop_that_ended_is_noticed(nats: NatsServer, ear: Ear) -> None:
    """nats-py goes on saying that it is connected; the bus makes a new client."""
    ear.ups.clear()
    link = ear.bus._link
    assert link is not None
    assert link._reading_task is not None
    link._reading_task.cancel()
    async with asyncio.timeout(SOON):
        await ear.ups.wait()
        await say(nats, "test.d")
        assert await ear.heard.get() == ("test.d", b"")


async def test_a_sink_that_raises_costs_only_its_message(nats: NatsServer) -> None:
    """What comes behind it is heard."""
    bus, heard = Bus(nats.url), asyncio.Queue[bytes]()

    def sink(_subject: str, payload: bytes, _reply: str) -> None:
        if payload == b"bad":
            raise ZeroDivisionError
        heard.put_nowait(payload)

    bus.subscribe("test", sink)
    await bus.connect()
    await say(nats, "test", b"bad")
    await say(nats, "test", b"good")

    async with asyncio.timeout(SOON):
        assert await heard.get() == b"good"
    await bus.close()


async def test_bytes_that_are_no_subject_do_not_end_the_reading(nats: NatsServer, ear: Ear) -> None:
    """A subject that is not UTF-8, and headers that are none, put on the wire by hand."""
    reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
    writer.write(b"PUB test.\xff\xfe 1\r\nx\r\n")
    writer.write(b"HPUB test.headers 14 15\r\nNATS/1.0\xff\xff\r\n\r\nx\r\n")
    writer.write(b"PUB test.good 1\r\nx\r\nPING\r\n")
    await writer.drain()

    async with asyncio.timeout(SOON):
        while await ear.heard.get() != ("test.good", b"x"):
            pass
    writer.close()
    await writer.wait_closed()
    assert ear.bus.connected
    assert not ear.bus.faults


async def test_a_server_that_refuses_us_is_named(tmp_path: Path) -> None:
    """Without the password."""
    server = NatsServer(tmp_path / "secured", config='authorization { user: "a", password: "right" }')
    await server.start()
    with pytest.raises(CannotStartError, match="refuses us") as error:
        await Bus(server.url.replace("nats://", "nats://a:wrong@")).connect()
    assert "wrong" not in str(error.value)

    bus = Bus(server.url.replace("nats://", "nats://a:right@"))
    await bus.connect()
    await bus.close()
    await server.stop()


async def test_a_server_that_does_not_let_us_listen_is_named(tmp_path: Path) -> None:
    """Connected and deaf would look like a world in which everybody has died."""
    user = '{ user: "a", password: "b", permissions: { subscribe: "_INBOX.>" } }'
    server = NatsServer(tmp_path / "deaf", config=f"authorization {{ users: [{user}] }}")
    await server.start()
    bus = Bus(server.url.replace("nats://", "nats://a:b@"))
    bus.subscribe("liveness.heartbeat.>", lambda *_: None)

    with pytest.raises(CannotStartError, match=r"liveness\.heartbeat"):
        await bus.connect()
    assert not bus.connected
    await bus.close()
    await server.stop()


async def test_a_server_that_is_not_up_yet_is_waited_for(tmp_path: Path) -> None:
    """And the cause is told once."""
    server = NatsServer(tmp_path / "late")
    await server.start()
    await server.stop()
    bus, causes = Bus(server.url), list[str]()
    waiting = asyncio.Event()

    def on_wait(cause: str) -> None:
        causes.append(cause)
        waiting.set()

    connecting = asyncio.create_task(bus.connect(on_wait))
    async with asyncio.timeout(SOON):
        await waiting.wait()
        await server.start()
        await connecting
    await bus.close()
    await server.stop()
    assert len(causes) == len(set(causes))


def test_an_unusable_url_is_refused() -> None:
    """It will not mend itself by waiting."""
    with pytest.raises(SettingsError, match="nats_url"):
        Bus("nats://127.0.0.1:notaport")


async def test_a_nats_without_jetstream_is_named(tmp_path: Path) -> None:
    """In one line, with the way out."""
    server = NatsServer(tmp_path / "plain", jetstream=False)
    await server.start()
    bus = Bus(server.url)
    await bus.connect()
    with pytest.raises(CannotStartError, match=r"has no JetStream.*-js"):
        await bus.ensure_stream("LIVENESS_EVENTS", ["workflow.reclaimed"], 600.0, 1 << 24)
    await bus.close()
    await server.stop()


async def test_a_hosts_stream_on_the_same_subjects_is_named(nats: NatsServer, ear: Ear) -> None:
    """With the two ways out."""
    client = await nats_py.connect(nats.url)
    await client.jetstream().add_stream(StreamConfig(name="HOST", subjects=["workflow.>"]))
    await client.close()

    with pytest.raises(CannotStartError, match=r"stream HOST already.*events_stream to HOST.*event_prefix"):
        await ear.bus.ensure_stream("LIVENESS_EVENTS", ["workflow.reclaimed"], 600.0, 1 << 24)


async def test_an_existing_stream_is_checked_and_completed(nats: NatsServer, ear: Ear) -> None:
    """Missing subjects are added; nothing else of it is changed."""
    client = await nats_py.connect(nats.url)
    context = client.jetstream()
    await context.add_stream(StreamConfig(name="LIVENESS_EVENTS", subjects=["workflow.*"], max_age=60.0, max_msgs=7))

    doubts = await ear.bus.ensure_stream("LIVENESS_EVENTS", ["workflow.reclaimed", "task.reclaimed"], 600.0, 1 << 24)
    again = await ear.bus.ensure_stream("LIVENESS_EVENTS", ["workflow.reclaimed", "task.reclaimed"], 600.0, 1 << 24)

    config = (await context.stream_info("LIVENESS_EVENTS")).config
    await client.close()
    assert config.subjects == ["workflow.*", "task.reclaimed"]
    assert (config.max_age, config.max_msgs) == (60.0, 7)
    assert len(doubts) == 2
    assert "task.reclaimed" in doubts[0]
    assert "events_max_age" in doubts[1]
    assert len(again) == 1


async def test_a_request_that_nobody_answers_is_an_error_of_its_own(ear: Ear) -> None:
    """At once when nobody listens."""
    with pytest.raises(NoServiceError, match="liveness serve"):
        await ear.bus.request("nobody.there", b"", SOON)
