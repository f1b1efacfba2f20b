"""The service on either event loop, where they differ: sockets that are lost, TLS, pauses, the end."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from nats import connect
from nats.aio.client import Client

from liveness.cli.serve import loop_factory
from liveness.embedded import NatsServer
from liveness.link import Link
from tests.conftest import SOON, HostTables

from .conftest import Liveness, Serve, beating, eventually
from .told import of_type, outbox_is_empty, published

LOOPS = [
    "asyncio",
    pytest.param(
        "uvloop", marks=pytest.mark.skipif(not find_spec("uvloop"), reason="no uvloop: pip install 'liveness[fast]'")
    ),
]
on_either = pytest.mark.parametrize("loop", LOOPS)


async def lapses(host: HostTables, client: Client, name: str) -> None:
    """See a worker beat, fall silent, and lose its work, of which the subscribers are told."""
    await host.worker(name)
    (workflow,) = await host.workflows(name)
    async with beating(client, [name]):
        await eventually(
            lambda: host.connection.fetchval("SELECT count(*) FROM liveness.epoch WHERE worker = $1", name),
            lambda count: count == 1,
        )
        assert await host.state(workflow) == ("RUNNING", name)
    await eventually(lambda: host.state(workflow), lambda state: state == ("PENDING", None))
    await outbox_is_empty(host)
    (event,) = [
        event for event in of_type(await published(client), "workflow.reclaimed") if event["subject"] == workflow
    ]
    assert (event["data"]["former_worker"], event["data"]["reason"]) == (name, "lapsed")


@on_either
async def test_nats_dies_and_comes_back(
    serve: Serve, host: HostTables, nats: NatsServer, client: Client, loop: str
) -> None:
    """A beat is heard, a lapse gives the work back, and both again on the connection that replaces a lost one."""
    service = await serve(event_loop=loop)
    assert (await service.logged("starting"))["event_loop"] == loop
    await lapses(host, client, "A")

    nats.kill()
    await service.logged("nats_lost")
    await nats.start()
    await service.logged("nats_back")

    await service.ready()
    await lapses(host, client, "B")
    await service.stop()


@on_either
async def test_over_tls(
    serve: Serve, host: HostTables, tls_nats: NatsServer, certificate: Path, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    """The same over a TLS connection, whose loss is noticed as well."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    service = await serve(event_loop=loop, nats_url=tls_nats.url.replace("nats://", "tls://"))
    trusting = ssl.create_default_context(cafile=str(certificate))
    client = await connect(tls_nats.url, tls=trusting, max_reconnect_attempts=-1, reconnect_time_wait=0)
    await lapses(host, client, "A")

    tls_nats.kill()
    await service.logged("nats_lost")
    await tls_nats.start()
    await service.logged("nats_back")

    await service.ready()
    await lapses(host, client, "B")
    await client.close()
    await service.stop()


@on_either
async def test_a_tls_link_that_is_closed_already_is_dropped(
    tls_nats: NatsServer, certificate: Path, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    """Whoever drops it comes behind the loop that noticed its end first, and must not be ended by that."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    async def drop() -> None:
        link = Link(lambda _: None)
        await link.open([tls_nats.url.replace("nats://", "tls://")], "test", "_INBOX")
        assert link.transport is not None
        link.transport.abort()
        async with asyncio.timeout(SOON):
            await link.lost
        # The transport lets go of TLS one turn later.
        await asyncio.sleep(0)
        await link.drop()
        assert link.unsent == 0

    def run() -> None:
        with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
            runner.run(drop())

    await asyncio.to_thread(run)


async def test_auto_takes_the_fastest_that_is_there(serve: Serve) -> None:
    """What it took stands in the first line."""
    service = await serve()

    assert (await service.logged("starting"))["event_loop"] == ("uvloop" if find_spec("uvloop") else "asyncio")


async def test_a_loop_that_is_not_there_is_named(
    liveness: Liveness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Asked for by name it is no wish but a setting: the service does not start on another one."""
    (tmp_path / "uvloop.py").write_text("raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    ran = await liveness("serve", event_loop="uvloop")

    assert (ran.code, ran.out) == (2, "")
    assert ran.complaint.startswith("liveness: event_loop = uvloop cannot be had (none here): pip install")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that vouches for itself, its key beside it."""
    if (openssl := shutil.which("openssl")) is None:
        pytest.skip("no openssl on the PATH, to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", folder / "key.pem", "-out", folder / "certificate.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder / "certificate.pem"


@pytest.fixture
async def tls_nats(certificate: Path, tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server that speaks TLS alone."""
    key = certificate.with_name("key.pem")
    server = NatsServer(tmp_path / "tls", config=f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}')
    await server.start()
    yield server
    await server.stop()
