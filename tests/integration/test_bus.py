"""The bus against a real nats-server that is killed, stopped and hostile."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import nats as nats_py
import pytest
from nats.js.api import StreamConfig
from structlog.testing import capture_logs

from liveness import eventstream
from liveness.bus import Bus
from liveness.embedded import NatsServer
from liveness.errors import CannotStartError, NoServiceError, SettingsError
from liveness.link import MOST_UNSENT_BYTES, Link
from tests.conftest import SOON, delivered


class Ear:
    """A bus that notes what it hears and when it could not."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(url)
        self.heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.ups, self.downs = asyncio.Event(), asyncio.Event()
        self.bus.subscribe("test.>", lambda subject, payload, _: self.heard.put_nowait((subject, payload)))
        self.bus.on_up, self.bus.on_down = self.ups.set, self.downs.set

    @property
    def link(self) -> Link:
        """The link that stands."""
        assert self.bus._link is not None
        return self.bus._link

    async def hears_again(self, server: NatsServer, kind: str) -> None:
        """Wait until a new link was made for a fault of this kind, and something is heard on it."""
        async with asyncio.timeout(SOON):
            await self.downs.wait()
            await self.ups.wait()
            await say(server, "test.again")
            while await self.heard.get() != ("test.again", b""):
                pass
        assert self.bus.faults == {kind: 1}


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
    await delivered(client)
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


@pytest.mark.parametrize("task", ["_reading_task", "_flusher_task"])
async def test_a_reading_or_writing_that_ended_is_noticed(nats: NatsServer, ear: Ear, task: str) -> None:
    """nats-py goes on saying that it is connected; the bus makes a new client."""
    ear.ups.clear()
    getattr(ear.link, task).cancel()
    await ear.hears_again(nats, "lost")


async def test_a_connection_that_is_full_and_half_open_is_noticed(nats: NatsServer, ear: Ear) -> None:
    """Output that nobody takes must not keep the next connection from being made; and it stays bounded."""
    ear.ups.clear()
    nats.pause()
    try:
        sent = 0
        while ear.bus.send("test.x", bytes(100_000)):
            await asyncio.sleep(0)
            sent += 1
            # What the kernel takes is bounded, too, but nobody says at what.
            assert sent < 1000
        assert ear.link.transport is not None
        assert ear.link._pending_data_size + ear.link.transport.get_write_buffer_size() <= MOST_UNSENT_BYTES + 1000
        async with asyncio.timeout(SOON):
            await ear.downs.wait()
    finally:
        nats.resume()
    await ear.hears_again(nats, "half_open")


async def test_a_subscription_that_the_server_forgot_can_be_given_up(nats: NatsServer, ear: Ear) -> None:
    """Only whoever listens can know: the server answers all the same."""
    ear.ups.clear()
    await ear.link._send_unsubscribe(1)
    await ear.link.answer(SOON)
    await say(nats, "test.unheard")
    ear.bus.give_up("no echo")
    assert not ear.bus.send("test.x", b"")
    await ear.hears_again(nats, "deaf")


async def test_a_client_that_the_server_closed_is_made_anew(nats: NatsServer, ear: Ear) -> None:
    """nats-py closes for good after an error such as this one, whatever it was told about reconnecting."""
    ear.ups.clear()
    ear.link._write(b"SUBB\r\n")
    await ear.hears_again(nats, "refused")


async def test_bytes_that_are_no_nats_end_the_link(nats: NatsServer, ear: Ear) -> None:
    """Whoever lost the place in the stream must not read on."""
    ear.ups.clear()
    assert ear.link._transport is not None
    ear.link._transport._io_reader.feed_data(b"MSG test.a 1 3\r\nabcdef\r\n")  # type: ignore[attr-defined]
    await ear.hears_again(nats, "malformed")


async def test_callbacks_that_raise_do_not_keep_the_bus_down(nats: NatsServer) -> None:
    """On the way down and on the way up."""
    ear = Ear(nats.url)

    def fail() -> None:
        raise ZeroDivisionError

    ear.bus.on_up = ear.bus.on_down = fail
    await ear.bus.connect()
    keeping = asyncio.create_task(ear.bus.keep())
    first = ear.link
    first.cut()
    async with asyncio.timeout(SOON):
        while not ear.bus.connected or ear.link is first:
            await asyncio.wait({keeping}, timeout=0.01)
            assert not keeping.done()
        await say(nats, "test.e")
        assert await ear.heard.get() == ("test.e", b"")
    assert ear.bus.faults == {"lost": 1, "callback_raised": 3}
    keeping.cancel()
    await ear.bus.close()


async def test_a_flood_leaves_the_others_their_turn(nats: NatsServer) -> None:
    """A timer of 20 ms goes on while 20,000 messages are taken that cost 50 us each."""
    bus, heard, longest, done = Bus(nats.url), 0, 0, asyncio.Event()
    since_turn = 0

    def sink(*_: object) -> None:
        nonlocal heard, since_turn, longest
        until = time.perf_counter() + 50e-6
        while time.perf_counter() < until:
            pass
        heard += 1
        since_turn += 1
        longest = max(longest, since_turn)
        if heard == 20_000:
            done.set()

    async def tick() -> None:
        nonlocal since_turn
        while True:
            # The timer that this test is about.
            await asyncio.sleep(0.02)
            since_turn = 0

    bus.subscribe("test", sink)
    await bus.connect()
    ticking = asyncio.create_task(tick())
    _, writer = await asyncio.open_connection("127.0.0.1", nats.port)
    writer.write(b'CONNECT {"verbose":false}\r\n' + b"PUB test 0\r\n\r\n" * 20_000)
    async with asyncio.timeout(SOON):
        await done.wait()
    ticking.cancel()
    writer.close()
    await writer.wait_closed()
    await bus.close()
    # 20 ms and a turn of 5 ms are 500 messages; a read of what is buffered is thousands.
    assert longest < 1200


async def test_sinks_that_raise_cost_a_line_of_the_log_a_second(nats: NatsServer) -> None:
    """Not one for each message."""
    bus, done, raised = Bus(nats.url), asyncio.Event(), 0

    def sink(*_: object) -> None:
        nonlocal raised
        raised += 1
        if raised == 1000:
            done.set()
        raise ZeroDivisionError

    bus.subscribe("test", sink)
    await bus.connect()
    with capture_logs() as lines:
        client = await nats_py.connect(nats.url)
        for _ in range(1000):
            await client.publish("test")
        await client.close()
        async with asyncio.timeout(SOON):
            await done.wait()
        await bus.close()
    assert bus.faults == {"sink_raised": 1000}
    assert 1 <= len([line for line in lines if line["event"] == "bus_fault"]) < 20


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


async def test_what_it_may_do_without_is_done_without(tmp_path: Path) -> None:
    """It is complained of, and everything else is heard."""
    user = '{ user: "a", password: "b", permissions: { subscribe: ["_INBOX.>", "Liveness.heartbeat.>"] } }'
    server = NatsServer(tmp_path / "strict", config=f"authorization {{ users: [{user}] }}")
    await server.start()
    bus, heard = Bus(server.url.replace("nats://", "nats://a:b@")), asyncio.Event()
    bus.subscribe("Liveness.heartbeat.>", lambda *_: heard.set())
    bus.subscribe("Liveness.*.*.heartbeat.>", lambda *_: None, optional=True)
    await bus.connect()
    bus.send("Liveness.heartbeat.w", b"")
    async with asyncio.timeout(SOON):
        await heard.wait()

    assert bus.faults["forbidden"] == 1
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


@pytest.mark.parametrize("error", [ConnectionRefusedError(), CannotStartError("refused")])
async def test_whoever_is_cancelled_waits_for_nats_no_more(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Though wait_for of Python 3.11 has only a failed attempt to tell of."""
    bus, attempts = Bus("nats://127.0.0.1:1"), 0

    async def refused() -> None:
        nonlocal attempts
        attempts += 1
        assert attempts == 1
        try:
            await asyncio.sleep(SOON)
        except asyncio.CancelledError:
            raise error from None

    monkeypatch.setattr(bus, "_open", refused)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await bus.connect_again()
    await bus.close()


def test_an_unusable_url_is_refused() -> None:
    """It will not mend itself by waiting."""
    with pytest.raises(SettingsError, match="nats_url"):
        Bus("nats://127.0.0.1:notaport")


async def test_a_nats_without_jetstream_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line, with the way out."""
    # It is not about to start.
    monkeypatch.setattr(eventstream, "JETSTREAM_START_SECONDS", 0.1)
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
    assert [doubt.says for doubt in doubts] == [
        "did not take task.reclaimed",
        "keeps events 60 s, events_max_age says 600",
    ]
    assert len(again) == 1


async def test_a_request_that_nobody_answers_is_an_error_of_its_own(ear: Ear) -> None:
    """At once when nobody listens."""
    with pytest.raises(NoServiceError, match="liveness serve"):
        await ear.bus.request("nobody.there", b"", SOON)
