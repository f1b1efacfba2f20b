"""Lost connections, as NATS tells them to its system account: hints, and no more."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import nats as nats_py
import pytest
from nats.aio.client import Client

from liveness.advisories import Advisories
from liveness.embedded import NatsServer
from liveness.errors import SettingsError
from liveness.eventdata import WorkerSuspected
from tests.conftest import SOON, HostTables
from tests.integration.running import News, Serve, ask, beat

ACCOUNTS = """
accounts {
  SYS: { users: [{ user: sys, password: secret }] }
  WORK: { jetstream: enabled, users: [{ user: work, password: secret }] }
}
system_account: SYS
no_auth_user: work
"""


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server with a system account; whoever says nothing is a worker."""
    server = NatsServer(tmp_path / "nats", config=ACCOUNTS)
    await server.start()
    yield server
    await server.stop()


def system(server: NatsServer, password: str = "secret") -> str:  # noqa: S107 - a test's own
    """Return the server's address for the system account."""
    return server.url.replace("nats://", f"nats://sys:{password}@")


async def test_a_worker_whose_connection_is_lost_is_suspect_at_once(
    host: HostTables, serve: Serve, nats: NatsServer, client: Client, news: News
) -> None:
    """Long before two of its intervals; it loses nothing, and its next beat takes it back."""
    (workflow,) = await host.workflows("w1")
    service = await serve(nats_system_url=system(nats))
    assert service.parts is not None
    assert service.parts.advisories is not None
    await service.parts.advisories.up.wait()
    worker = await nats_py.connect(nats.url, name="liveness worker w1")
    stated = {"via": worker._server_info["server_id"], "ttl": 600, "interval": 100}
    await beat(worker, "w1", **stated)
    await ask(client, "status")
    await worker.close()

    event = await news.until("worker.suspected")
    assert isinstance(event.data, WorkerSuspected)
    assert (event.subject, event.data.cause) == ("w1", "disconnected")
    await beat(client, "w1", **stated)
    assert (await news.until("worker.recovered")).subject == "w1"
    assert await host.state(workflow) == ("RUNNING", "w1")


async def test_other_connections_are_nobodys(nats: NatsServer) -> None:
    """Whatever they are called, and whatever else is said there."""
    heard: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
    advisories = Advisories(system(nats), lambda worker, via: heard.put_nowait((worker, via)))
    listening = asyncio.create_task(advisories.keep())
    await advisories.up.wait()
    names = [
        "",
        "worker w1",
        "liveness worker",
        "liveness worker ",
        "liveness worker a b",
        "liveness worker $liveness.x",
    ]
    for name in [*names, "liveness worker the.last"]:
        client = await nats_py.connect(nats.url, name=name)
        server = client._server_info["server_id"]
        await client.close()
    async with asyncio.timeout(SOON):
        assert await heard.get() == ("the.last", server)
    for payload in (b"", b"{", b"\xff", b"[]", b"[" * 100_000, json.dumps({"client": {"name": 7}}).encode()):
        advisories._hear("", payload, "")
    listening.cancel()
    await advisories.close()
    assert heard.empty()


async def test_a_system_account_that_refuses_us_keeps_nobody_from_serving(serve: Serve, nats: NatsServer) -> None:
    """It is said, and the service does without."""
    service = await serve(nats_system_url=system(nats, "wrong"))
    assert service.parts is not None
    assert service.parts.advisories is not None
    await service.parts.advisories.refused.wait()

    assert service.troubles() == []


def test_an_address_that_is_none_is_named_by_its_setting() -> None:
    """And not by the other one."""

    async def make() -> None:
        Advisories("ftp://nowhere", lambda *_: None)

    with pytest.raises(SettingsError, match="nats_system_url names"):
        asyncio.run(make())
