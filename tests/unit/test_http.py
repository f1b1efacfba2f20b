"""The HTTP listener on a real socket: whoever reaches it can neither use it up nor make it complain."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count

import pytest
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from liveness import connections
from liveness.connections import Connection
from liveness.http import Http
from liveness.page import Page, routes
from liveness.settings import Settings
from tests.conftest import SOON, look_again

TOKEN = "0123456789abcdef-t0ken"  # noqa: S105 - of this test
# What somebody without the token may begin to say, and never end.
BEGUN = {
    "nothing": b"",
    "half a line": b"GET /liv",
    "half a header": b"GET /livez HTTP/1.1\r\nhost: h\r\nx: ",
    "half a login": b"POST /login HTTP/1.1\r\nhost: h\r\ncontent-length: 4000\r\n\r\ntoken=",
    "a body that nobody reads": b"POST /metrics HTTP/1.1\r\nhost: h\r\ncontent-length: 4000\r\n\r\n.",
}
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def never_taken(_request: Request) -> StreamingResponse:
    """Answer more than anything on the way keeps for who does not read."""

    async def much() -> AsyncIterator[bytes]:
        while True:
            yield bytes(2**20)
            await look_again()

    return StreamingResponse(much())


async def slow(_request: Request) -> StreamingResponse:
    """Answer until the test has seen it."""

    async def little() -> AsyncIterator[bytes]:
        while True:
            yield b"."
            await look_again()

    return StreamingResponse(little())


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    """One that serves, and asks for a token."""

    async def metrics(_accept: str) -> tuple[bytes, str]:
        return b"up 1\n", "text/plain"

    made = Http(
        "127.0.0.1:0", troubles=list, ills=list, metrics=metrics, token=lambda: TOKEN,
        routes=[
            Route("/never-taken", never_taken), Route("/slow", slow), *Page(Settings(), lambda: None, list).routes(),
        ],
    )  # fmt: skip
    serving = asyncio.create_task(made.serve())
    while not made._server.started:
        await look_again()
    yield made
    serving.cancel()
    await asyncio.wait({serving})


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
async def connect(http: Http) -> AsyncIterator[Connect]:
    """Connect, and say something; all are closed at the end."""
    async with AsyncExitStack() as stack:

        async def connected(says: bytes = b"") -> Client:
            reader, writer = await asyncio.open_connection("127.0.0.1", http.port)
            stack.callback(writer.close)
            writer.write(says)
            return reader, writer

        yield connected


def asks(path: str) -> bytes:
    """Return a whole request of somebody who has the token."""
    return f"GET {path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {TOKEN}\r\n\r\n".encode()


async def is_alive(connect: Connect) -> bool:
    """Say whether the orchestrator's probe is answered, as it is: on a connection of its own."""
    reader, _ = await connect(b"GET /livez HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
    async with asyncio.timeout(SOON):
        return (await reader.read()).endswith(b"alive\n")


async def ended(client: Client) -> None:
    """Read until the other side has ended it."""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(SOON):
            while await client[0].read(2**16):
                pass


@asynccontextmanager
async def complaints(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Fail if uvicorn or asyncio have complained of what was asked, as the service's log is set."""
    with caplog.at_level(logging.ERROR):
        yield
    assert [record.getMessage() for record in caplog.records] == []


async def test_the_probe_is_answered_however_many_connect(
    http: Http, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Who has waited longest goes, and not who comes, nor whose answer is under way; the log says it once."""
    monkeypatch.setattr(connections, "MOST", 8)
    monkeypatch.setattr(Connection, "_told_at", -float("inf"))
    held = http._server.server_state.connections
    reader, _ = await connect(asks("/slow"))
    await reader.readuntil(b".")
    clients = []

    async with complaints(caplog):
        with capture_logs() as lines:
            for _ in range(4):
                clients += await asyncio.gather(*(connect(says) for says in BEGUN.values() for _ in range(4)))
                assert await is_alive(connect)
                assert len(held) <= 8
            await asyncio.gather(*(ended(client) for client in clients[:40]))
    assert [line["event"] for line in lines] == ["http_crowded"]
    reader._buffer.clear()  # type: ignore[attr-defined] # what comes now
    await reader.readuntil(b".")


async def test_who_comes_waits_where_it_costs_no_descriptor(http: Http) -> None:
    """The kernel keeps more than are accepted in one go: whom it turned away would come again a second later."""
    told = http._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    # Of a socket that listens, `tcpi_sacked` is how many may wait.
    assert struct.unpack_from("I", told, 28)[0] == connections.QUEUE > http._server.config.backlog


async def test_where_all_are_being_answered_who_comes_is_still_answered(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no token is asked for: the oldest goes, and may come again."""
    monkeypatch.setattr(connections, "MOST", 3)
    clients = [await connect(asks("/slow")) for _ in range(3)]
    for reader, _ in clients:
        await reader.readuntil(b".")

    assert await is_alive(connect)
    await ended(clients[0])


@pytest.mark.parametrize("begun", BEGUN)
async def test_what_is_begun_and_not_ended_is_not_waited_for(
    http: Http, connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, begun: str
) -> None:
    """Not even for who goes on to say a little; what is being answered may take its time."""
    reader, _ = await connect(asks("/slow"))
    await reader.readuntil(b".")
    monkeypatch.setattr(connections, "PATIENCE", 0.1)
    client = await connect(BEGUN[begun])

    async def drip() -> None:
        while True:
            client[1].write(b"x")
            await look_again()

    async with complaints(caplog):
        dripping = asyncio.create_task(drip())
        await ended(client)
        dripping.cancel()
    reader._buffer.clear()  # type: ignore[attr-defined] # what comes now
    await reader.readuntil(b".")
    assert len(http._server.server_state.connections) == 1


async def test_an_answer_that_nobody_takes_is_not_kept(
    http: Http, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much there is of it."""
    monkeypatch.setattr(connections, "PATIENCE", 0.3)
    reader, _ = await connect(asks("/never-taken"))
    held = http._server.server_state.connections
    async with asyncio.timeout(SOON):
        assert await reader.read(1)
        while held:
            await look_again()


async def test_a_stream_of_the_page_is_not_for_ever(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says that it is to be begun anew, for which the token is asked again."""
    monkeypatch.setattr(routes, "STREAM_SECONDS", 0.1)
    monkeypatch.setattr(routes, "LIVE_SECONDS", 0.02)
    reader, _ = await connect(asks("/events"))

    async with asyncio.timeout(SOON):
        said = await reader.readuntil(b"\r\n0\r\n\r\n")
    assert routes.AGAIN.encode() in said


async def test_a_stream_that_nobody_takes_makes_room_for_another(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may ask, and stands still, keeps the page from nobody."""
    monkeypatch.setattr(routes, "STREAMS_MOST", 1)
    monkeypatch.setattr(routes, "LIVE_SECONDS", 0.0)
    number = count()
    monkeypatch.setattr(routes, "status_part", lambda *_: f"{next(number)}{'x' * 2**20}")
    monkeypatch.setattr(connections, "PATIENCE", 0.3)

    async def status() -> bytes:
        reader, _ = await connect(asks("/events"))
        # Nothing, should it not have been fast enough.
        with contextlib.suppress(ConnectionError):
            return (await reader.readline())[9:12]
        return b""

    assert await status() == b"200"
    async with asyncio.timeout(SOON):
        while await status() != b"200":
            await look_again()


async def test_nobody_fills_the_log_without_a_token(
    http: Http, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """By what is no HTTP, by what wants to be another protocol, and by a way back that leads nowhere."""
    # There is none, whatever is installed.
    assert http._server.config.ws == "none"
    async with complaints(caplog):
        for says, status in (
            (b"\x16\x03\x01 is no HTTP\r\n\r\n", b"400"),
            (b"GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", b"401"),
            (b"GET /login?next=//[ HTTP/1.1\r\nhost: h\r\n\r\n", b"200"),
        ):
            reader, _ = await connect(says)
            assert (await reader.readuntil(b"\r\n")).split()[1] == status
