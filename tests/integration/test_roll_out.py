"""The page of the roll-out: whoever does what stands there, in its order, sees what it says."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from nats.aio.client import Client

from liveness.cli import check, commands, sweep, why
from liveness.embedded import NatsServer
from liveness.service import Service
from tests.conftest import SOON, HostTables, look_again
from tests.integration.running import Serve, beat

PAGE = (Path(__file__).parents[2] / "docs" / "roll-out.md").read_text(encoding="utf-8")
SHORT = {
    "heartbeat_timeout": 0.3,
    "min_ttl": 0.3,
    "gap_grace": 0.1,
    "workflow_stuck_timeout": 0.5,
    "stale_worker_check_interval": 0.5,
}


class Reader:
    """Somebody who goes through the page, block by block, and does what stands there."""

    def __init__(self, host: HostTables, serve: Serve) -> None:
        self._blocks = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
        self._host = host
        self._serve = serve
        self.services: list[Service] = []

    async def enter(self, *lines: str) -> str:
        """Enter the next block, which is these lines for a shell; return what the last of them says."""
        kind, text = self._blocks.pop(0)
        assert (kind, tuple(text.splitlines())) == ("sh", lines)
        said = ""
        for line in lines:
            if line.startswith("liveness serve"):
                mode = line.partition("--mode ")[2] or "act"
                self.services.append(await self._serve(mode=mode, **SHORT))
            else:
                said = await asyncio.to_thread(self.run, line)
        return said

    def run(self, line: str) -> str:
        """Enter one line, and return what it says."""
        words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', line)]
        done = CliRunner().invoke(commands, words[1:])
        # What is to be said of servers for a test is not all well.
        assert done.exit_code == 0 or (words[1] == "check" and done.exit_code == 1), done.output
        return done.output

    async def ask(self) -> list[tuple[Any, ...]]:
        """Ask Postgres the next block."""
        kind, text = self._blocks.pop(0)
        assert kind == "sql"
        return [tuple(row) for row in await self._host.connection.fetch(text)]

    @property
    def is_through(self) -> bool:
        """Whether there is nothing more on the page."""
        return not self._blocks

    async def until(self, statement: str, wanted: object) -> None:
        """Wait until Postgres says so."""
        async with asyncio.timeout(SOON):
            while await self._host.connection.fetchval(statement) != wanted:
                await look_again()


@pytest.fixture
def reader(host: HostTables, serve: Serve, dsn: str, nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A reader whose commands find the servers of this test."""
    monkeypatch.setenv("LIVENESS_POSTGRES_DSN", dsn)
    monkeypatch.setenv("LIVENESS_NATS_URL", nats.url)
    for module in (check, sweep, why):
        # What a command makes of the log lasts as long as its process, which is not ours here.
        monkeypatch.setattr(module, "configure", lambda *_: None)
    for name, value in SHORT.items():
        monkeypatch.setenv(f"LIVENESS_{name.upper()}", str(value))
    return Reader(host, serve)


async def test_the_roll_out(host: HostTables, reader: Reader, client: Client) -> None:
    """What was observed is compared with what happened, and what is stuck goes back once somebody has resumed."""
    for worker in ("w1", "w2"):
        await host.worker(worker)
    finished, worked_on = await host.workflows("w1", 2)
    stuck, moved = await host.workflows("w2", 2)

    await reader.enter("liveness migrate", "liveness check")
    await reader.enter("liveness serve --mode observe")
    await beat(client, "w1", incarnation="a", uptime=1_000.0, ttl=0.3)
    assert "mode observe" in await reader.enter("liveness status")
    await reader.until("SELECT count(*) FROM liveness.reclaim WHERE observed", 4)
    assert await host.count("RUNNING") == 4
    # It lived: it finishes one piece of work, and goes on with the other.
    change = (
        "UPDATE workflow_execution SET status = $2, worker_id = $3, updated_at = clock_timestamp() WHERE id = $1::uuid"
    )
    await host.connection.execute(change, finished, "COMPLETED", "w1")
    await host.connection.execute(change, worked_on, "RUNNING", "w1")
    await host.connection.execute(change, moved, "PENDING", None)
    await beat(client, "w1", incarnation="a", uptime=1_003.0, ttl=60.0)
    await reader.until("SELECT count(*) FROM liveness.expiration WHERE recovered_at IS NOT NULL", 1)

    assert await reader.ask() == [("w2", 1, "lapsed")]
    became = await reader.ask()
    assert [row[:2] for row in became] == [
        ("finished by its owner: would have been taken wrongly", 1),
        ("given back or finished otherwise", 1),
        ("stuck until now: would be back", 1),
        ("worked on by its owner: would have been taken wrongly", 1),
    ]
    assert [row[2] is None for row in became] == [True, False, True, True]
    ((worker, reason, ttl, longer, because),) = await reader.ask()
    assert (worker, reason, ttl) == ("w1", "lapsed", 0.3)
    assert 0 < longer.total_seconds() < SOON
    assert because.startswith("no heartbeat for ")
    assert "w1 is alive" in await reader.enter("liveness why --worker w1")

    assert "paused by" in await reader.enter('liveness pause --reason "roll-out: the first look"', "liveness serve")
    _, acting = reader.services
    assert acting.parts is not None
    async with asyncio.timeout(SOON):
        while not acting.parts.leadership.leading:
            await look_again()
    said = await reader.enter("liveness status", "liveness sweep --dry-run")
    async with asyncio.timeout(SOON):
        # As the page says: until it says no more that it listens.
        while "ask again" in said or "would end 0 lives" in said:
            said = await asyncio.to_thread(reader.run, "liveness sweep --dry-run")
    assert "w2" in said
    assert "would end 1 life; nothing was touched" in said
    assert await host.state(stuck) == ("RUNNING", "w2")
    assert "resumed" in await reader.enter("liveness resume")
    await acting.parts.pausing.look()
    await reader.until("SELECT count(*) FROM workflow_execution WHERE status = 'PENDING'", 2)
    assert await host.state(worked_on) == ("RUNNING", "w1")
    assert "INC-4711" in await reader.enter('liveness pause --reason "INC-4711"')
    assert reader.is_through
