"""The status page of a running service, as a browser asks for it."""

import asyncio
import contextlib
import html
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import quote

import pytest
from nats.aio.client import Client

from liveness.embedded import NatsServer
from liveness.page import Page, routes
from liveness.page.rendering import View, status_page
from liveness.page.routes import POLICY
from liveness.service import Service
from liveness.settings import Settings
from liveness.store.outbox import Outbox
from tests.conftest import SOON, HostTables, delivered, look_again
from tests.integration.running import Serve, ask, beat


async def got(service: Service, path: str) -> tuple[int, dict[str, str], str]:
    """Return status, headers and body of what is answered."""
    async with stream(service, path) as (status, headers, reader):
        return status, headers, (await reader.read()).decode()


@asynccontextmanager
async def stream(service: Service, path: str) -> AsyncIterator[tuple[int, dict[str, str], asyncio.StreamReader]]:
    """Ask, and return status, headers, and where the rest comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", service.http.port)
    try:
        writer.write(f"GET {path} HTTP/1.0\r\nhost: here\r\naccept: text/html\r\n\r\n".encode())
        async with asyncio.timeout(SOON):
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            yield (
                int(first.split()[1]),
                {name.lower(): rest for name, rest in (one.split(": ", 1) for one in lines)},
                reader,
            )
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def part(reader: asyncio.StreamReader) -> str:
    """Return the next part that a stream brings."""
    async with asyncio.timeout(SOON):
        while (event := (await reader.readuntil(b"\n\n")).decode()).startswith(":"):
            pass
    assert all(line.startswith("data: ") for line in event.strip().split("\n"))
    return event.replace("data: ", "")


def names(page: str) -> list[str]:
    """Return whose leases a page shows."""
    return [html.unescape(name) for name in re.findall(r'<tr [^>]*data-key="([^"]*)"', page)]


def words(page: str) -> str:
    """Return what a page says."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", page)).split())


async def test_page_terminal_and_scripts_say_the_same(host: HostTables, serve: Serve, client: Client) -> None:
    """Who has a lease and who ended, and the story in the same words; live, and as a snapshot."""
    service = await serve(heartbeat_timeout=60, workflow_stuck_timeout=60)
    (work,) = await host.workflows("A<b>")
    await beat(client, "A<b>", incarnation="i")
    await beat(client, "other", ttl=50, incarnation="j")
    async with stream(service, "/events") as (status, headers, reader):
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        while names(await part(reader)) != ["other", "A<b>"]:
            pass
        await client.publish("liveness.goodbye.A<b>", b'{"incarnation": "i"}')
        await delivered(client)
        while f"/why/{work}" not in (live := await part(reader)):
            pass
    status, headers, page = await got(service, "/")
    answer = await ask(client, "status", recent=5)
    told = await ask(client, "why", work_id=work)

    assert names(live) == names(page) == [worker["worker"] for worker in answer["workers"]] == ["other"]
    assert [end["worker"] for end in answer["ends"]] == ["A<b>"]
    assert [(move["id"], move["reason"]) for move in answer["moves"]] == [(work, "released")]
    assert "A<b> said goodbye" in words(page)
    assert "leads in term 1" in words(page)
    assert headers["content-security-policy"] == POLICY
    status, headers, story = await got(service, f"/why/{work}")
    assert (status, headers["content-security-policy"]) == (200, POLICY)
    for said in (told["pieces"][0]["sentence"], *(step["says"] for step in told["pieces"][0]["steps"])):
        assert re.sub(r"\([^)]*ago\)", "", said) in re.sub(r"\([^)]*ago\)", "", words(story))
    assert (await got(service, f"/why?worker={quote('A<b>')}"))[0] == 200


async def test_what_is_asked_for_is_shown_and_nothing_else(
    serve: Serve, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a part of the name in any case, page by page; and what is no question is answered as that."""
    monkeypatch.setattr(routes, "ROWS", 3)
    service = await serve(heartbeat_timeout=60, workflow_stuck_timeout=60)
    for number in range(5):
        await beat(client, f"Mail-{number}", ttl=50 + number)
    await beat(client, "print", ttl=40)

    async def shown(path: str) -> list[str]:
        return names((await got(service, path))[2])

    async with asyncio.timeout(SOON):
        while len(await shown("/?offset=3")) != 3:
            await look_again()
    assert await shown("/") == ["print", "Mail-0", "Mail-1"]
    assert await shown("/?name=mAIL&offset=3") == ["Mail-3", "Mail-4"]
    assert await shown("/?name=%00%ff%3Cscript%3E") == []
    assert await shown("/?offset=-1&name=print") == ["print"]
    for path, status in {
        "/why": 400,
        "/why?id=a&worker=b": 400,
        f"/why/{'x' * 2000}": 400,
        "/why/no-such-id": 404,
        "/why?id=%00%0a%e2%80%ae": 404,
        "/why?id=..": 404,
        "/page.css": 200,
        "/page.js": 200,
        "/icon.svg": 200,
        "/page/routes.py": 404,
    }.items():
        assert (await got(service, path))[0] == status, path


async def test_without_postgres_the_leases_are_shown(
    serve: Serve, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it says nothing, nobody waits for it, and it is asked once; when it answers, the page says that."""
    monkeypatch.setattr(routes, "PATIENCE", 0.05)
    service = await serve(heartbeat_timeout=60, workflow_stuck_timeout=60)
    await beat(client, "w1")
    answers, asked = asyncio.Event(), []

    async def depth(_self: Outbox) -> tuple[int, float]:
        asked.append(1)
        await answers.wait()
        return 0, 0.0

    monkeypatch.setattr(Outbox, "depth", depth)
    while names((page := await got(service, "/"))[2]) != ["w1"]:
        await look_again()
    assert "Postgres: no answer within 0.05 s" in words(page[2])
    assert 'data-label="running">?<' in page[2]
    # The service's own round asks, too, while anything is left.
    assert len(asked) <= 2
    answers.set()
    async with asyncio.timeout(SOON):
        while "no answer" in words((await got(service, "/"))[2]):
            await look_again()


async def test_a_stream_ends_with_the_service(settings: Callable[..., Settings], nats: NatsServer) -> None:
    """And nothing is asked for it any more."""
    service, stop = Service(settings(nats_url=nats.url)), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await service.started.wait()
    async with stream(service, "/events") as (_, _, reader):
        await part(reader)
        stop.set()
        await running
        async with asyncio.timeout(SOON):
            assert (await reader.read()).count(b"\n\n") < 5


async def test_before_it_has_begun_the_page_says_what_it_waits_for() -> None:
    """And shows nobody."""
    waiting = Page(Settings(), lambda: None, lambda: ["Postgres: nobody is there"])

    page = status_page(await waiting.picture(View()), View())
    assert "Postgres: nobody is there" in words(page)
    assert names(page) == []


async def test_so_many_streams_and_no_more(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes beyond them is told to come again, and who goes makes room."""
    monkeypatch.setattr(routes, "STREAMS_MOST", 1)
    service = await serve()
    async with stream(service, "/events") as (first, _, reader):
        await part(reader)
        assert first == 200
        assert (await got(service, "/events"))[0] == 503
    async with asyncio.timeout(SOON):
        while True:
            async with stream(service, "/events") as (status, _, _):
                if status == 200:
                    return
            await look_again()
