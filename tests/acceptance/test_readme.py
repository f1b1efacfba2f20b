"""What the README shows is done as it stands there, on this test's servers: each snippet, and each line for a shell.

A snippet in Python is a program of its own where it is one; what it takes from whoever copies it (`claim`) stands
before it. What is not run says why.
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

import liveness
import liveness.testing
from liveness.embedded import NatsServer
from liveness.messages import Goodbye, HelloAnswer
from tests.conftest import HostTables
from tests.integration.beats import Spy

from .conftest import Liveness, Serve, eventually
from .programs import URL, Programs, programs_in

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)

# By words that only one has. Each is run by the test of its name, or not, for the reason given.
RUN = {
    'async with liveness.Heartbeater("nats://127.0.0.1:4222", worker="w1", ttl=10, interval=2)': "a_worker",
    "liveness.SyncHeartbeater(": "a_worker_without_an_event_loop",
    "asyncio.create_task(heartbeater.lost.wait())": "a_worker_that_may_be_cut_off",
    "async def work_on(heartbeater)": "a_worker_that_may_be_cut_off",
    "liveness.testing.FakeHeartbeater(": "the_test_of_a_worker",
    "liveness.events(": "a_subscriber",
    "liveness run --worker w1": "any_command",
    "nats request liveness.hello.w1": "the_line_of_a_hello",
    "liveness migrate\nliveness serve": "the_service",
}
NOT_RUN = {
    "liveness demo": "it installs from a registry: test_wheel.py installs, and test_demo.py runs the demonstration",
    ".venv/bin/pytest": "it is what is running",
    "pip wheel --no-deps": "it installs from a registry: test_wheel.py makes a wheel, and looks at what is in it",
}


def test_every_snippet_is_accounted_for() -> None:
    """A new one has to be given its test here."""
    for snippet in PYTHON + SHELL:
        assert sum(words in snippet for words in (*RUN, *NOT_RUN)) == 1, snippet
    for words, name in RUN.items():
        assert any(words in snippet for snippet in PYTHON + SHELL), words
        assert f"test_{name}" in globals()


def snippet(words: str) -> str:
    """Return the one with these words in it."""
    (found,) = [snippet for snippet in PYTHON + SHELL if words in snippet]
    return str(found)


CLAIM = """
UPDATE workflow_execution SET status = 'RUNNING', worker_id = $1, version = version + 1, updated_at = now()
WHERE id = (SELECT id FROM workflow_execution WHERE status = 'PENDING' ORDER BY created_at, id LIMIT 1
            FOR UPDATE SKIP LOCKED) RETURNING id, version
"""
FINISH = """
UPDATE workflow_execution SET status = 'COMPLETED', version = version + 1, updated_at = now()
WHERE id = $1 AND status = 'RUNNING' AND worker_id = 'w1' AND version = $2
"""
ASYNC_HOST = f"""
import asyncpg, os
async def execute(statement, *values):
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    try:
        return await connection.fetchrow(statement, *values)
    finally:
        await connection.close()
async def claim(worker):
    return await execute('''{CLAIM}''', worker)
async def carry_out(work):
    await execute('''{FINISH}''', work["id"], work["version"])
"""
SYNC_HOST = f"""
import collections, os, psycopg
database = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, cursor_factory=psycopg.RawCursor)
Work = collections.namedtuple("Work", "id version")
def claim(worker):
    found = database.execute('''{CLAIM}''', [worker]).fetchone()
    return found and Work(*found)
def carry_out(work):
    database.execute('''{FINISH}''', [work.id, work.version])
"""


@pytest.fixture
async def programs(dsn: str, nats: NatsServer, tmp_path: Path) -> AsyncIterator[Programs]:
    """Run programs; nothing of them is left."""
    environment = {"DATABASE_URL": dsn, "NATS_URL": nats.url, "LIVENESS_NATS_URL": nats.url}
    async with programs_in(tmp_path / "programs", environment) as those:
        yield those


async def test_a_worker(host: HostTables, programs: Programs, spy: Spy) -> None:
    """It carries out what there is, and says goodbye."""
    await host.workflows(None, count=2, status="PENDING")
    child = await programs.python(ASYNC_HOST + snippet("ttl=10, interval=2)"))
    beat = await spy.beat()
    assert (beat.ttl, beat.interval) == (10, 2)
    assert await spy.goodbye() == Goodbye(incarnation=beat.incarnation)
    assert await child.end() == 0
    assert await host.count("COMPLETED", "w1") == 2


async def test_a_worker_without_an_event_loop(host: HostTables, programs: Programs, spy: Spy) -> None:
    """As the one with."""
    await host.workflows(None, count=2, status="PENDING")
    child = await programs.python(SYNC_HOST + snippet("SyncHeartbeater("))
    beat = await spy.beat()
    assert beat.ttl == 10
    assert await spy.goodbye() == Goodbye(incarnation=beat.incarnation)
    assert await child.end() == 0
    assert await host.count("COMPLETED", "w1") == 2


def worker(**names: Any) -> dict[str, Any]:
    """Return what the snippets of a worker define, with two pieces of work, and the mails that were sent."""
    pieces = [SimpleNamespace(id="7"), SimpleNamespace(id="8")]
    sent: list[str] = []

    async def claim(_name: str) -> Any:
        return pieces.pop(0) if pieces else None

    async def carry_out(_work: Any) -> None:
        await asyncio.sleep(0)

    async def send_the_mail(work: Any) -> None:
        sent.append(work.id)

    own = {"asyncio": asyncio, "liveness": liveness, "claim": claim, "carry_out": carry_out, "sent": sent}
    return define("async def work_on(heartbeater)", own | {"send_the_mail": send_the_mail} | names)


def define(words: str, names: dict[str, Any], url: str = URL) -> dict[str, Any]:
    """Run a snippet with these names, and return them with those that it defines."""
    exec(compile(snippet(words).replace(URL, url), "README.md", "exec"), names)  # noqa: S102 - that is what is tested
    return names


async def test_a_worker_that_may_be_cut_off(nats: NatsServer) -> None:
    """It sends its mails as long as its time is not up; and stops when it is lost."""
    names = define("heartbeater.lost.wait()", worker(), nats.url)
    await asyncio.wait_for(names["main"](), 5)
    assert names["sent"] == ["7", "8"]

    stopped = []

    async def stuck(_work: Any) -> None:
        made[0].lose()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(made[0].held)

    made: list[liveness.testing.FakeHeartbeater] = []

    def make(url: str, **options: Any) -> liveness.testing.FakeHeartbeater:
        made.append(liveness.testing.FakeHeartbeater(url, **options))
        return made[0]

    played = SimpleNamespace(Heartbeater=make)
    names = define("heartbeater.lost.wait()", worker(carry_out=stuck, liveness=played))
    await asyncio.wait_for(names["main"](), 5)
    assert (stopped, names["sent"], made[0].said_goodbye) == ([("7",)], [], True)


async def test_the_test_of_a_worker() -> None:
    """It passes, and fails for a worker that does not ask."""
    names = define("FakeHeartbeater(", worker())
    await names["test_no_mail_is_sent_when_the_time_is_up"]()
    assert names["sent"] == []

    async def never_asks(heartbeater: liveness.Heartbeater) -> None:
        with heartbeater.holding("7"):
            names["sent"].append("7")

    names["work_on"] = never_asks
    with pytest.raises(AssertionError):
        await names["test_no_mail_is_sent_when_the_time_is_up"]()


async def test_a_subscriber(serve: Serve, host: HostTables, programs: Programs, client: Client) -> None:
    """It hears of what was given back."""
    await serve()
    await host.worker("w1")
    (workflow,) = await host.workflows("w1")
    child = await programs.python(snippet("liveness.events("))
    await client.publish("liveness.heartbeat.w1", b"")
    await eventually(lambda: host.connection.fetchval("SELECT count(*) FROM liveness.epoch"), bool)
    await client.publish("liveness.goodbye.w1", b"")
    await child.line(lambda line: line == f"{workflow} is PENDING again: w1 released")


async def test_any_command(programs: Programs, spy: Spy) -> None:
    """It is beaten for, and its end is told."""
    programs.write("worker", '#!/bin/sh\necho "$LIVENESS_WORKER: $*"\nexit 3\n')
    child = await programs.sh(snippet("liveness run"))
    beat = await spy.beat()
    assert beat.ttl == 10
    assert await spy.goodbye() == Goodbye(incarnation=beat.incarnation, exit_code=3)
    assert await child.said("w1: ") == "--queue invoices"
    assert await child.end() == 3


# Stands in for the official one where that is not on the PATH: its `pub` and its `request`, which prints the answer.
NATS_COMMAND = f"""#!{sys.executable}
import asyncio, os, sys, nats
async def main(verb, subject, payload):
    client = await nats.connect(os.environ["NATS_URL"])
    if verb == "request":
        print((await client.request(subject, payload.encode(), timeout=10)).data.decode())
    else:
        await client.publish(subject, payload.encode())
    await client.flush()
    await client.close()
asyncio.run(main(*sys.argv[1:]))
"""


async def test_the_line_of_a_hello(serve: Serve, host: HostTables, programs: Programs) -> None:
    """It is answered with an epoch, and what is `RUNNING` under the name was given back; a bare beat begins a life."""
    await serve(heartbeat_timeout=60)
    await host.worker("w1")
    programs.write("nats", NATS_COMMAND)
    (beat,) = re.findall(r"`(nats pub liveness\.heartbeat\.w1 '')`", README)
    assert await (await programs.sh(beat)).end() == 0
    await eventually(lambda: host.connection.fetchval("SELECT max(epoch) FROM liveness.epoch"), bool)
    (workflow,) = await host.workflows("w1", untouched_for=60)
    child = await programs.sh(snippet("nats request"))
    answer = msgspec.json.decode(await child.line(lambda line: line.startswith("{")), type=HelloAnswer)
    assert await child.end() == 0
    assert (answer.worker, answer.incarnation) == ("w1", "a-text-of-this-process-alone")
    assert answer.epoch
    assert await host.state(workflow) == ("PENDING", None)


async def test_the_service(empty_dsn: str, programs: Programs, liveness: Liveness) -> None:
    """Installed already, it is migrated and serves, on a database that has the tables of a workflow server."""
    host_tables = await liveness("migrate", "--host-tables", postgres_dsn=empty_dsn)
    assert host_tables.code == 0
    install, export, *lines = snippet("liveness serve").splitlines()
    assert install.startswith("pip install ")
    values = {"LIVENESS_NATS_URL": programs.environment["NATS_URL"], "LIVENESS_POSTGRES_DSN": empty_dsn}
    names, _ = re.subn(r"=\S+", "", export)
    assert names.split() == ["export", *values]
    here = " ".join(f"{name}='{value}'" for name, value in values.items())
    service = await programs.serve("\n".join([f"export {here}", *lines]))
    await service.ready()
    os.killpg(service.process.pid, signal.SIGTERM)
    await service.end()
