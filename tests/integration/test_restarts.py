"""A worker restarts under its old name: hello, incarnations and their beginnings, on the whole service."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from nats.aio.client import Client
from structlog.testing import capture_logs

from liveness.eventdata import WorkflowReclaimed
from tests.conftest import SOON, HostTables, delivered
from tests.integration.running import News, Serve, ask, beat, hello


async def superseded(client: Client, worker: str) -> "asyncio.Queue[Any]":
    """Return what a worker is told on its own subject."""
    told: asyncio.Queue[Any] = asyncio.Queue()

    async def take(message: Any) -> None:
        told.put_nowait(json.loads(message.data))

    await client.subscribe(f"liveness.superseded.{worker}", cb=take)
    await delivered(client)
    return told


@contextlib.asynccontextmanager
async def beating(client: Client, worker: str, *, incarnation: str, uptime: float) -> AsyncIterator[None]:
    """Beat as a process does that began `uptime` seconds ago, while the body runs."""
    began = time.monotonic() - uptime
    over = asyncio.Event()

    async def beats() -> None:
        while not over.is_set():
            await beat(client, worker, incarnation=incarnation, uptime=time.monotonic() - began)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 0.2)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(beats())
        try:
            yield
        finally:
            over.set()


async def age(host: HostTables, workflow: str, seconds: float) -> None:
    """Let a row have been touched so long ago."""
    await host.connection.execute(
        "UPDATE workflow_execution SET updated_at = now() - make_interval(secs => $2) WHERE id = $1::uuid",
        workflow,
        seconds,
    )


async def test_hello_of_a_name_that_nobody_knew_gives_an_epoch(serve: Serve, client: Client) -> None:
    """And no event: nothing has ended."""
    service = await serve()

    answer = await hello(client, "w1", incarnation="a", ttl=5)

    assert answer["incarnation"] == "a"
    assert answer["error"] is None
    assert service.parts is not None
    lease = service.parts.book.get("w1")
    assert lease is not None
    assert answer["epoch"] == lease.epoch
    assert service.parts.relay.published == 0


async def test_hello_is_answered_when_the_former_life_s_work_is_back(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """Whatever the former incarnation held is PENDING before the new one can claim anything."""
    await host.worker("w1")
    await serve()
    first = await hello(client, "w1", incarnation="a")
    works = await host.workflows("w1", count=3)

    second = await hello(client, "w1", incarnation="b")

    assert [await host.state(work) for work in works] == [("PENDING", None)] * 3
    assert second["epoch"] > first["epoch"]
    event = await news.until("workflow.reclaimed")
    assert isinstance(event.data, WorkflowReclaimed)
    assert (event.data.reason, event.data.incarnation, event.data.epoch) == ("restarted", "a", first["epoch"])
    assert await host.worker_status("w1") == ["ONLINE"]


async def test_hello_waits_for_a_reclaim_larger_than_a_chunk(host: HostTables, serve: Serve, client: Client) -> None:
    """What is left to finish is the former life's, too."""
    await serve(reclaim_chunk=10)
    await hello(client, "w1", incarnation="a")
    works = await host.workflows("w1", count=95)

    await hello(client, "w1", incarnation="b")

    assert {await host.state(work) for work in works} == {("PENDING", None)}


async def test_hello_finds_work_of_a_life_that_nobody_knew(host: HostTables, serve: Serve, client: Client) -> None:
    """A row in its name that is older than this process is not its own."""
    await serve()
    (workflow,) = await host.workflows("w1", untouched_for=5)

    answer = await hello(client, "w1", incarnation="a", uptime=0.5)

    assert await host.state(workflow) == ("PENDING", None)
    assert answer["epoch"] is not None


async def test_hello_again_changes_nothing(host: HostTables, serve: Serve, client: Client) -> None:
    """The reply may have been lost, and what this life has claimed since stays its own."""
    await serve()
    first = await hello(client, "w1", incarnation="a")
    (workflow,) = await host.workflows("w1")

    again = await hello(client, "w1", incarnation="a")

    assert again == first
    assert await host.state(workflow) == ("RUNNING", "w1")


async def test_hello_of_a_former_incarnation_is_refused(host: HostTables, serve: Serve, client: Client) -> None:
    """It is over, and takes nothing from the one that lives."""
    await serve()
    await hello(client, "w1", incarnation="a")
    await hello(client, "w1", incarnation="b")
    (workflow,) = await host.workflows("w1")

    answer = await hello(client, "w1", incarnation="a")

    assert answer["epoch"] is None
    assert "newer" in answer["error"]
    assert await host.state(workflow) == ("RUNNING", "w1")


async def test_a_hello_that_does_not_say_who_is_refused(serve: Serve, client: Client) -> None:
    """In a line that names what is missing."""
    await serve()

    answer = await hello(client, "w1", ttl=5)

    assert answer["epoch"] is None
    assert "incarnation" in answer["error"]


async def test_a_restart_without_hello_is_told_by_uptime(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """What was touched before the new process began goes back; what it has claimed since stays its own."""
    await host.worker("w1")
    await serve()
    told = await superseded(client, "w1")
    await beat(client, "w1", incarnation="a", uptime=100, ttl=30)
    await ask(client, "status")
    (former,) = await host.workflows("w1", untouched_for=9)

    async with beating(client, "w1", incarnation="b", uptime=0.0):
        (claimed,) = await host.workflows("w1")
        event = await news.until("workflow.reclaimed")
    assert event.subject == former
    assert isinstance(event.data, WorkflowReclaimed)
    assert (event.data.reason, event.data.incarnation) == ("restarted", "a")
    assert await host.state(claimed) == ("RUNNING", "w1")
    # The former process, should it live, is told at its next beat.
    await beat(client, "w1", incarnation="a", uptime=110)
    async with asyncio.timeout(SOON):
        assert (await told.get())["incarnation"] == "a"


async def test_without_uptime_nothing_is_taken_and_it_is_said(host: HostTables, serve: Serve, client: Client) -> None:
    """Nobody can tell the former process's rows from the new one's."""
    await serve()
    with capture_logs() as logs:
        await beat(client, "w1", incarnation="a", ttl=30)
        (workflow,) = await host.workflows("w1", untouched_for=100)
        await beat(client, "w1", incarnation="b")
        await beat(client, "w1", incarnation="b")
        await ask(client, "status")

    assert await host.state(workflow) == ("RUNNING", "w1")
    (line,) = [line for line in logs if line["event"] == "incarnation_without_uptime"]
    assert "hello" in line["complaint"]


async def test_two_that_beat_under_one_name_are_a_conflict(host: HostTables, serve: Serve, client: Client) -> None:
    """Loud, shown in the status, and nothing is taken from either."""
    await serve()
    (workflow,) = await host.workflows("w1", untouched_for=50)
    with capture_logs() as logs:
        for beats in range(4):
            await beat(client, "w1", incarnation="a", uptime=100 + 3 * beats, ttl=30)
            await beat(client, "w1", incarnation="b", uptime=20)
        await beat(client, "w1", incarnation="b", uptime=23)
        status = await ask(client, "status")

    assert [line["worker"] for line in logs if line["event"] == "conflict"] == ["w1"]
    assert status["conflicts"] == ["w1"]
    assert await host.state(workflow) == ("RUNNING", "w1")


async def test_a_goodbye_of_the_former_process_leaves_the_new_one_its_work(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """The new one was heard before the goodbye came."""
    await serve()
    await beat(client, "w1", incarnation="a", uptime=100, ttl=30)
    (former, claimed) = await host.workflows("w1", count=2)
    await age(host, former, 9)
    await beat(client, "w1", incarnation="b", uptime=5)
    await client.publish("liveness.goodbye.w1", b'{"incarnation": "a"}')

    assert (await news.until("workflow.reclaimed")).subject == former
    assert await host.state(claimed) == ("RUNNING", "w1")


async def test_work_of_a_process_that_was_never_known_is_found_by_the_next(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """A name in the book is never swept, so what is older than its process has to be found otherwise."""
    await serve()
    (former, claimed) = await host.workflows("w1", count=2)
    await age(host, former, 50)
    async with beating(client, "w1", incarnation="a", uptime=10.0):
        assert (await news.until("workflow.reclaimed")).subject == former
    assert await host.state(claimed) == ("RUNNING", "w1")


async def test_an_uptime_beyond_all_reason_harms_nobody(host: HostTables, serve: Serve, client: Client) -> None:
    """The database could not subtract it, and the others' arrivals are looked at in the same statement."""
    await serve()
    (workflow,) = await host.workflows("w2", untouched_for=5)
    await hello(client, "w1", incarnation="a", uptime=1e300)

    await hello(client, "w2", incarnation="a", uptime=0.1)

    assert await host.state(workflow) == ("PENDING", None)


async def test_any_answer_to_a_probe_renews(host: HostTables, serve: Serve, client: Client) -> None:
    """Any reply renews the lease of a worker that stopped beating and answers all the same."""
    await serve()
    probes = 0
    enough = asyncio.Event()

    async def answer(message: Any) -> None:
        nonlocal probes
        probes += 1
        if probes == 3:
            enough.set()
        await message.respond(b"")

    await client.subscribe("liveness.probe.w1", cb=answer)
    await beat(client, "w1", ttl=1, probe=True)
    (workflow,) = await host.workflows("w1")

    async with asyncio.timeout(SOON):
        await enough.wait()
    assert await host.state(workflow) == ("RUNNING", "w1")


async def test_what_a_probe_said_is_in_the_evidence(host: HostTables, serve: Serve, client: Client, news: News) -> None:
    """That nobody listens proves nothing, and is written down."""
    await serve()
    await beat(client, "w1", ttl=1, probe=True)
    await news.until("worker.expired")

    evidence = await host.connection.fetchval("SELECT evidence FROM liveness.expiration")
    assert json.loads(evidence)["details"] == {"probe": "no responders"}
