"""Bytes on the wire: hostile frames through a real nats-server, what we send and ask, and nats-py's private parts."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats as nats_py
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from liveness.bus import Bus
from liveness.embedded import NatsServer
from liveness.link import MOST_ASKED, MOST_UNSENT_BYTES, Link
from liveness.settings import Settings
from tests.conftest import SOON, delivered
from tests.fuzz.stage import perform


class Heard:
    """A bus that listens to `test.>` on the raw path, and to `slow.>` through nats-py's queues."""

    def __init__(self, url: str) -> None:
        self.bus = Bus(url)
        self.messages: asyncio.Queue[tuple[str, bytes, str]] = asyncio.Queue()
        self.bus.subscribe("test.>", lambda *message: self.messages.put_nowait(message))

    @property
    def link(self) -> Link:
        """The link that stands."""
        assert self.bus._link is not None
        return self.bus._link

    async def slow(self) -> "asyncio.Queue[bytes]":
        """Subscribe by nats-py's own means, as JetStream does."""
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def take(message: Any) -> None:
            heard.put_nowait(message.data)

        await self.link.subscribe("slow.>", cb=take)
        await self.link.answer(SOON)
        return heard


@asynccontextmanager
async def hearing(url: str) -> AsyncIterator[Heard]:
    """A connected bus."""
    heard = Heard(url)
    await heard.bus.connect()
    yield heard
    await heard.bus.close()


@pytest.fixture
async def ear(nats: NatsServer) -> AsyncIterator[Heard]:
    """A connected bus."""
    async with hearing(nats.url) as heard:
        yield heard


async def put(server: NatsServer, *frames: bytes) -> None:
    """Put frames on the wire by hand, and wait until the server has taken them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n' + b"".join(frames) + b"PING\r\n")
    async with asyncio.timeout(SOON):
        while (answer := await reader.readline()) != b"PONG\r\n":
            assert answer.startswith(b"INFO"), answer
    writer.close()
    await writer.wait_closed()


HOSTILE_HEADERS = [
    b"NATS/1.0",
    b"NATS/1.0\xff\xff\r\n\r\n",
    b"NATS/1.0 \xff\xff\xff\r\n\r\n",
    b"NATS/1.0 503",
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\n" + b"A: 1\r\n" * 50_000 + b"\r\n",
    b"x",
    b"\r\n\r\n",
]


@pytest.mark.parametrize("byte", [0x00, 0x0B, 0x0C, 0x1C, 0x1F, 0x7F, 0x85, 0xA0, 0xFF])
async def test_a_subject_with_any_byte_in_it_is_a_message(nats: NatsServer, byte: int) -> None:
    """A vertical tab in a subject once ended the connection of every subscriber."""
    async with hearing(nats.url) as heard:
        slow = await heard.slow()
        raw = b"a%bb" % bytes([byte])
        await put(nats, *(b"PUB %b.%b %b 1\r\nx\r\n" % (first, raw, raw) for first in (b"test", b"slow")))
        await put(nats, b"PUB test.good 1\r\nx\r\n")
        text = raw.decode(errors="replace")
        async with asyncio.timeout(SOON):
            assert await heard.messages.get() == (f"test.{text}", b"x", text)
            assert await heard.messages.get() == ("test.good", b"x", "")
            assert await slow.get() == b"x"
        assert not heard.bus.faults


@pytest.mark.parametrize("headers", HOSTILE_HEADERS, ids=range(len(HOSTILE_HEADERS)))
async def test_any_headers_are_a_message(nats: NatsServer, headers: bytes) -> None:
    """Headers of eight bytes once ended the reading for good."""
    async with hearing(nats.url) as heard:
        slow = await heard.slow()
        sizes = b"%d %d" % (len(headers), len(headers) + 1)
        await put(nats, *(b"HPUB %b.a %b\r\n%bx\r\n" % (first, sizes, headers) for first in (b"test", b"slow")))
        async with asyncio.timeout(SOON):
            assert await heard.messages.get() == ("test.a", b"x", "")
            assert await slow.get() == b"x"
        assert not heard.bus.faults


async def test_a_payload_that_looks_like_protocol_is_a_payload(nats: NatsServer) -> None:
    """Also one that is cut by the size of a read."""
    payloads = [b"MSG test.forged 1 0\r\n\r\n" * 5000, b"-ERR 'Authorization Violation'\r\n", b"PONG\r\n", b"\r\n"]
    async with hearing(nats.url) as heard:
        await put(nats, *(b"PUB test.a %d\r\n%b\r\n" % (len(payload), payload) for payload in payloads))
        async with asyncio.timeout(SOON):
            assert [(await heard.messages.get())[1] for _ in payloads] == payloads
        assert not heard.bus.faults


async def test_an_inbox_of_ours_may_be_flooded(nats: NatsServer) -> None:
    """By who was asked, with answers to questions of others and to none."""
    async with hearing(nats.url) as heard:
        assert heard.bus._link is not None
        inbox = heard.bus._link._inbox.encode()
        await put(nats, *(b"PUB %b.%d 1\r\nx\r\n" % (inbox, token) for token in range(2000)))
        await put(nats, *(b"HPUB %b.\xff\x0b 8 8\r\nNATS/1.0\r\n" % inbox for _ in range(100)))
        await put(nats, b"PUB test.good 1\r\nx\r\n")
        async with asyncio.timeout(SOON):
            assert await heard.messages.get() == ("test.good", b"x", "")
        assert not heard.bus.faults


async def test_the_order_holds_across_sinks(nats: NatsServer) -> None:
    """A goodbye and the beat before it, of one connection, are taken in the order in which they were sent."""
    bus, heard, done = Bus(nats.url), list[bytes](), asyncio.Event()

    def sink(_subject: str, payload: bytes, _reply: str) -> None:
        heard.append(payload)
        if len(heard) == 2000:
            done.set()

    bus.subscribe("beat.*", sink)
    bus.subscribe("goodbye.*", sink)
    await bus.connect()
    client = await nats_py.connect(nats.url)
    for number in range(1000):
        await client.publish("beat.w", b"%d" % (2 * number))
        await client.publish("goodbye.w", b"%d" % (2 * number + 1))
    await delivered(client)
    async with asyncio.timeout(SOON):
        await done.wait()
    await client.close()
    await bus.close()
    assert heard == [b"%d" % number for number in range(2000)]


@pytest.mark.parametrize(
    "subject",
    ["", "a b", "a\r\nPUB b 0", "a\tb", "a\x0bb", "a\ufffd", "x" * 5000, "\u20ac" * 1000, "a\x00"],
)
async def test_what_would_end_the_connection_is_not_sent(ear: Heard, subject: str) -> None:
    """Nor what could reach nobody."""
    assert not ear.bus.send(subject, b"")
    assert not await ear.bus.publish(subject, b"")
    assert not ear.link.send("test.x", b"", subject or " ")
    assert ear.bus.send("test.good", b"x")
    async with asyncio.timeout(SOON):
        assert await ear.messages.get() == ("test.good", b"x", "")
    await ear.link.answer(SOON)
    assert not ear.bus.faults


async def test_a_payload_that_is_too_large_for_the_server_is_not_sent(tmp_path: Path) -> None:
    """It would end the connection."""
    server = NatsServer(tmp_path / "small", config="max_payload: 1000")
    await server.start()
    async with hearing(server.url) as heard:
        assert not heard.bus.send("test.x", bytes(1001))
        assert heard.bus.send("test.x", bytes(1000))
        await heard.link.answer(SOON)
    await server.stop()


async def test_nothing_is_sent_without_a_connection() -> None:
    """And nothing raised."""
    bus = Bus("nats://127.0.0.1:1")
    assert not bus.send("test.x", b"")
    assert not bus.ask("test.x", b"", lambda _: None, 1.0)
    assert not await bus.publish("test.x", b"")
    bus.give_up("no cause")


@pytest.mark.parametrize("reply", ["", "$JS.API.STREAM.DELETE.X", "test.b", "liveness.heartbeat.w"])
async def test_answers_go_to_inboxes_only(ear: Heard, reply: str) -> None:
    """Who asks chooses where we answer; it must not be where we may do what they may not."""
    assert not ear.bus.answer(reply, b"")
    assert ear.bus.answer("_INBOX.x", b"")


class Answers:
    """What became of questions."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def next(self) -> bytes | None:
        """Return the next answer."""
        async with asyncio.timeout(SOON):
            return await self.got.get()


async def test_a_question_is_answered_once(nats: NatsServer, ear: Heard) -> None:
    """With the first answer, whatever headers it has; what comes later is ignored."""
    client, answers = await nats_py.connect(nats.url), Answers()

    async def respond(message: Msg) -> None:
        await client.publish(message.reply, b"1", headers={"A": "b"})
        await client.publish(message.reply, b"2")
        await delivered(client)

    await client.subscribe("asked", cb=respond)
    await delivered(client)
    for _ in range(2):
        assert ear.bus.ask("asked", b"", answers.got.put_nowait, SOON)
        assert await answers.next() == b"1"
    await ear.link.answer(SOON)
    assert answers.got.empty()
    await client.close()


async def test_a_question_that_nobody_hears_is_told_at_once(ear: Heard) -> None:
    """The server says so."""
    answers = Answers()
    assert ear.bus.ask("nobody.there", b"", answers.got.put_nowait, SOON)
    assert await answers.next() is None
    assert not ear.link._asked


async def test_questions_are_forgotten_and_bounded(nats: NatsServer, ear: Heard) -> None:
    """After their time, without a call; and an answer that comes then is ignored."""
    client, answers, replies = await nats_py.connect(nats.url), Answers(), list[str]()

    async def keep(message: Msg) -> None:
        replies.append(message.reply)

    await client.subscribe("silent", cb=keep)
    await delivered(client)
    for _ in range(MOST_ASKED):
        assert ear.bus.ask("silent", b"", answers.got.put_nowait, 2.0)
        if ear.link.unsent > MOST_UNSENT_BYTES // 2:
            await ear.link.answer(SOON)
    assert not ear.bus.ask("silent", b"", answers.got.put_nowait, 2.0)
    async with asyncio.timeout(SOON):
        while ear.link._asked or not replies:
            await asyncio.wait({ear.link.lost}, timeout=0.02)
    await client.publish(replies[0], b"late")
    await delivered(client)
    await ear.link.answer(SOON)
    assert answers.got.empty()
    assert ear.bus.ask("nobody.there", b"", answers.got.put_nowait, SOON)
    assert await answers.next() is None
    await client.close()


async def test_questions_of_a_lost_link_are_forgotten(ear: Heard) -> None:
    """They cannot be answered any more."""
    assert ear.bus.ask("test.x", b"", lambda _: None, SOON)
    link = ear.link
    link.cut()
    assert not link._asked


async def test_who_was_asked_cannot_answer_for_another(nats: NatsServer, ear: Heard) -> None:
    """The inbox is known to whoever was asked; the rest of the address is not to be guessed."""
    replies, client = list[str](), await nats_py.connect(nats.url)

    async def keep(message: Msg) -> None:
        replies.append(message.reply)

    await client.subscribe("silent", cb=keep)
    await delivered(client)
    for _ in range(3):
        assert ear.bus.ask("silent", b"", lambda _: None, SOON)
    await ear.link.answer(SOON)
    await delivered(client)
    async with asyncio.timeout(SOON):
        while len(replies) < 3:
            await asyncio.wait({ear.link.lost}, timeout=0.01)
    tokens = [reply.rpartition(".")[2] for reply in replies]
    assert len({reply.rpartition(".")[0] for reply in replies}) == 1
    assert len({token[:8] for token in tokens}) == len({token[-8:] for token in tokens}) == 3
    await client.close()


async def test_a_busy_server_has_longer_to_answer(
    nats: NatsServer, ear: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer stands behind what it sends us; a connection that brings something is not half open."""
    monkeypatch.setattr(Link, "_process_pong", _ignore)
    with pytest.raises(ConnectionError, match="no answer"):
        await ear.link.answer(0.05)
    began = time.monotonic()

    async def talk() -> None:
        while time.monotonic() - began < 0.5:
            await put(nats, b"PUB test.talk 0\r\n\r\n")

    talking = asyncio.create_task(talk())
    with pytest.raises(ConnectionError, match="no answer"):
        await ear.link.answer(0.2, SOON)
    assert time.monotonic() - began > 0.5
    await talking


async def _ignore(_: Link) -> None:
    pass


async def test_twenty_thousand_hostile_frames(nats: NatsServer, settings: Callable[..., Settings]) -> None:
    """The short form of `python -m tests.fuzz`: no lapse, every good beat counted, the link that was made at first."""
    report = await perform(settings(nats_url=nats.url), frames=20_000, seed=3, workers=1000)
    print(report)  # noqa: T201 - the seed, should it fail
    assert report.violations == []
    assert report.confirmed >= 20_000
    assert report.ended_by_server > 0


SIGNATURES = {
    "_process_msg": "(self, sid: 'int', subject: 'bytes', reply: 'bytes', data: 'bytes', headers: 'bytes') -> 'None'",
    "_process_headers": "(self, headers) -> 'Optional[Dict[str, str]]'",
    "_process_err": "(self, err_msg: 'str') -> 'None'",
    "_process_op_err": "(self, e: 'Exception') -> 'None'",
    "_process_ping": "(self) -> 'None'",
    "_process_pong": "(self) -> 'None'",
    "_read_loop": "(self) -> 'None'",
    "_flusher": "(self) -> 'None'",
    "_send_ping": "(self, future: 'Optional[asyncio.Future]' = None) -> 'None'",
    "_send_unsubscribe": "(self, sid: 'int', limit: 'int' = 0) -> 'None'",
}


def test_the_private_parts_of_nats_py_are_as_they_were() -> None:
    """What `liveness.link` overrides and leans on; look at each use of it when this fails."""
    assert {name: str(inspect.signature(getattr(Client, name))) for name in SIGNATURES} == SIGNATURES
    made = vars(Client())
    parts = {"_flush_queue", "_flusher_task", "_pending_data_size", "_pongs", "_pings_outstanding", "_transport"}
    parts |= {"_server_info", "_subs", "_sid", "_reading_task", "_max_payload", "_err"}
    assert parts <= made.keys()
    assert isinstance(made["_pending"], list)
    assert isinstance(made["_ps"], Parser)
    assert "_io_writer" in vars(TcpTransport())  # type: ignore[no-untyped-call]
    assert Link._read_loop is not Client._read_loop
