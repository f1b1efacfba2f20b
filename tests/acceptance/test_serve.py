import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from nats.aio.client import Client

from liveness.embedded import NatsServer, PostgresServer
from liveness.errors import CannotStartError, DatabaseAwayError, SettingsError
from liveness.settings import load
from liveness.store import Database, database
from tests.conftest import HostTables

from .conftest import STOP_SECONDS, Gate, Liveness, Ran, Serve, all_of, beating, eventually
from .told import of_type, outbox_is_empty, published

SECRET = "k3ep-0ut"  # noqa: S105 - a password, and the point is that it is not shown


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def without_user(dsn: str, user: str) -> str:
    """Return `dsn` with another user (and password)."""
    parts = urlsplit(dsn)
    return parts._replace(netloc=f"{user}@{parts.hostname}:{parts.port}").geturl()


def refused(ran: Ran, code: int = 1) -> str:
    """Return the one line in which a service said why it does not start."""
    assert ran.code == code, ran.err
    assert ran.out == ""
    assert ran.complaint.startswith("liveness: ")
    assert SECRET not in ran.err
    return ran.complaint.removeprefix("liveness: ")


async def test_stops_in_the_middle_of_a_reclaim(serve: Serve, host: HostTables, client: Client, gate: Gate) -> None:
    """SIGTERM ends a service that is in a transaction within 5 s, nothing is half done, and the next one does it."""
    service = await serve(reclaim_chunk=50, lock_timeout=60)
    # However late it is heard, no sweep takes it for stale before.
    await host.worker("A", silent_for=-60)
    workflows = sorted(await host.workflows("A", count=300))
    # In the transaction that ends the epoch as well.
    await gate.close_before("UPDATE ON workflow_execution", f"NEW.id = '{workflows[25]}'")
    async with beating(client, ["A"]):
        pass
    await gate.reached()

    await service.stop()

    assert [await host.state(workflow) for workflow in workflows] == [("RUNNING", "A")] * 300
    assert await host.worker_status("A") == ["ONLINE"]
    for table in ("reclaim", "remainder", "expiration", "outbox"):
        assert await host.connection.fetchval(f"SELECT count(*) FROM liveness.{table}") == 0, table  # noqa: S608
    ended = "SELECT count(*) FROM liveness.epoch WHERE ended_at IS NOT NULL"
    assert await host.connection.fetchval(ended) == 0
    await gate.open()

    await serve(reclaim_chunk=50)
    await eventually(lambda: host.count("PENDING"), lambda count: count == len(workflows))
    assert await host.connection.fetchval("SELECT count(*) FROM workflow_execution WHERE version = 1") == 300
    await outbox_is_empty(host)
    assert len(of_type(await published(client), "workflow.reclaimed")) == 300


async def test_stops_while_its_servers_are_frozen(
    serve: Serve, nats: NatsServer, postgres: PostgresServer, client: Client, gate: Gate
) -> None:
    """SIGTERM ends a service within 5 s though both servers froze while it was in a transaction."""
    service = await serve(lock_timeout=60)
    await gate.close_before("INSERT ON liveness.epoch")
    async with beating(client, ["A"]):
        await gate.reached()
    postgres.pause()
    nats.pause()
    try:
        await service.stop()
    finally:
        nats.resume()
        postgres.resume()
    await gate.open()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stops_while_it_waits_for_its_servers(serve: Serve, number: signal.Signals) -> None:
    """SIGTERM, like Ctrl-C, ends a service that still waits for its servers, with exit code 0."""
    service = await serve(wait=False, postgres_dsn=f"postgresql://postgres@127.0.0.1:{free_port()}/postgres")
    await service.logged("waiting")
    service.signal(number)
    assert await service.end(STOP_SECONDS) == 0


async def test_waits_for_servers_that_are_not_up_yet(serve: Serve, liveness: Liveness, tmp_path: Path) -> None:
    """A service that starts before its servers lives, says what it waits for, and works when they are up."""
    own_postgres, own_nats = PostgresServer(tmp_path / "own-postgres"), NatsServer(tmp_path / "own-nats")
    try:
        await own_postgres.start()
        await own_nats.start()
        servers = {"postgres_dsn": own_postgres.dsn, "nats_url": own_nats.url}
        assert (await liveness("migrate", "--host-tables", postgres_dsn=own_postgres.dsn)).code == 0
        await own_postgres.stop()
        await own_nats.stop()

        service = await serve(wait=False, **servers)
        assert (await service.logged("waiting"))["waiting_for"] == "Postgres"
        status, body = await service.get("/readyz")
        assert (status, body.startswith("Postgres: ")) == (503, True)
        assert await service.get("/livez") == (200, "alive\n")

        await own_postgres.start()
        status, body = await eventually(lambda: service.get("/readyz"), lambda answer: "NATS" in answer[1])
        assert (status, body.startswith("NATS: ")) == (503, True)
        assert await service.get("/livez") == (200, "alive\n")

        # Work of somebody who died meanwhile.
        connection = await asyncpg.connect(own_postgres.dsn)
        await connection.execute("INSERT INTO workflow_execution (worker_id, status) VALUES ('A', 'RUNNING')")
        await own_nats.start()
        await service.ready()
        pending = "SELECT count(*) FROM workflow_execution WHERE status = 'PENDING' AND worker_id IS NULL"
        await connection.execute("UPDATE workflow_execution SET updated_at = now() - interval '1 hour'")
        await eventually(lambda: connection.fetchval(pending), lambda count: count == 1)
        await connection.close()

        # Each cause once, however many attempts there were.
        waits = [line for line in service.lines if '"event": "waiting"' in line]
        causes = [line.partition('"timestamp"')[0] for line in waits]
        assert len(set(causes)) == len(causes)
        await service.stop()
    finally:
        await own_nats.stop()
        await own_postgres.stop()


@pytest.fixture
def locked_role(postgres: PostgresServer) -> Iterator[str]:
    """A role that Postgres lets in with a password only; the embedded server trusts everybody else."""
    rules = postgres.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{before}")
    yield "locked"
    rules.write_text(before)


async def test_wrong_password(
    liveness: Liveness, host: HostTables, locked_role: str, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong password ends the service with one line, in which it is not shown."""
    monkeypatch.setattr(database, "ROTATION_SECONDS", 0.0)
    await host.connection.execute(f"CREATE ROLE {locked_role} LOGIN PASSWORD 'another'")
    try:
        await host.connection.execute("SELECT pg_reload_conf()")
        wrong = without_user(dsn, f"{locked_role}:{SECRET}")

        async def asked() -> str:
            try:
                await (await asyncpg.connect(wrong)).close()
            except asyncpg.InvalidPasswordError:
                return "refused"
            return "let in"

        # The postmaster reads its rules again in its own time.
        await eventually(asked, lambda outcome: outcome == "refused")
        line = refused(await liveness("serve", postgres_dsn=wrong))
        await password_from_a_file(without_user(dsn, locked_role), tmp_path / "password")
    finally:
        await host.connection.execute(f"DROP ROLE {locked_role}")
    assert line == 'Postgres refuses the connection: password authentication failed for user "locked"'


def write(file: Path, text: str) -> None:
    """Put a secret into its file."""
    file.write_text(text, encoding="utf-8")


async def password_from_a_file(dsn: str, file: Path) -> None:
    """See that it is read anew for each connection: what is wrong may be mended beside a process that runs."""
    settings, _ = load({}, postgres_dsn=dsn, postgres_password_file=str(file))
    opened = Database.of(settings)
    with pytest.raises(SettingsError, match=f"postgres_password_file = '{file}' cannot be read"):
        await opened.connect()
    write(file, SECRET)
    with pytest.raises(CannotStartError, match="password authentication failed"):
        await opened.connect()
    write(file, "another\n")
    await opened.connect()
    write(file, "")
    await opened._pool.expire_connections()
    with pytest.raises(DatabaseAwayError, match="no connection: postgres_password_file"):
        await opened.fetch("SELECT 1")
    await opened.close()


@pytest.mark.parametrize(
    ("dsn_of", "complaint"),
    [
        (lambda dsn: without_user(dsn, "nobody_here"), 'role "nobody_here" does not exist'),
        (lambda dsn: dsn.rpartition("/")[0] + "/nowhere", 'database "nowhere" does not exist'),
    ],
    ids=["role", "database"],
)
async def test_role_or_database_that_does_not_exist(
    liveness: Liveness, dsn: str, dsn_of: Callable[[str], str], complaint: str
) -> None:
    """A role or a database that does not exist ends the service with one line that names it."""
    line = refused(await liveness("serve", postgres_dsn=dsn_of(dsn)))
    assert line == f"Postgres refuses the connection: {complaint}"


async def test_nonsense_settings(liveness: Liveness) -> None:
    """A setting that cannot be used ends the service with exit code 2 and one line that names it."""
    nonsense: list[tuple[dict[str, object], list[str]]] = [
        ({"postgres_dsn": "mysql://127.0.0.1/x"}, ["postgres_dsn", "mysql"]),
        ({"nats_url": "nats://127.0.0.1:port"}, ["nats_url"]),
        ({"min_ttl": 10, "max_ttl": 5}, ["min_ttl (10)", "max_ttl (5)"]),
        ({"heartbeat_timeout": "soon"}, ["heartbeat_timeout", "'soon'"]),
    ]
    runs = await all_of(*(liveness("serve", **settings) for settings, _ in nonsense))
    for ran, (_, words) in zip(runs, nonsense, strict=True):
        line = refused(ran, code=2)
        assert all(word in line for word in words), line


async def test_schema_not_migrated(liveness: Liveness, empty_dsn: str) -> None:
    """A database that was not migrated, or lacks the host's tables, ends the service with the command that helps."""
    line = refused(await liveness("serve", postgres_dsn=empty_dsn))
    assert line == "the schema liveness has not been created: run `liveness migrate`"

    assert (await liveness("migrate", postgres_dsn=empty_dsn)).code == 0
    line = refused(await liveness("serve", postgres_dsn=empty_dsn))
    assert line.startswith("there is no table public.worker: ")
    assert "`liveness migrate --host-tables`" in line


async def test_http_port_in_use(liveness: Liveness) -> None:
    """A port that somebody else has ends the service with one line that names the setting."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        line = refused(await liveness("serve", http_listen=address))
    assert line.startswith(f"http_listen = {address} cannot be used: ")
    assert "in use" in line


async def test_nats_refuses(liveness: Liveness, strict_nats: NatsServer) -> None:
    """A NATS that does not let the service in ends it with one line, without the password."""
    address = f"127.0.0.1:{strict_nats.port}"
    urls = [f"nats://service:{SECRET}@{address}", f"nats://{address}"]
    for ran in await all_of(*(liveness("serve", nats_url=url) for url in urls)):
        line = refused(ran)
        assert line.startswith(f"NATS at {address} refuses us: ")
        assert "check nats_url" in line


async def test_nats_without_jetstream(liveness: Liveness, tmp_path: Path) -> None:
    """A NATS without JetStream ends the service with one line that says how to start it with."""
    server = NatsServer(tmp_path / "plain", jetstream=False)
    await server.start()
    try:
        line = refused(await liveness("serve", nats_url=server.url))
    finally:
        await server.stop()
    assert line.startswith(f"NATS at 127.0.0.1:{server.port} has no JetStream")
    assert "-js" in line


async def test_overlapping_stream(liveness: Liveness, serve: Serve, client: Client, host: HostTables) -> None:
    """A host's stream on our subjects is named in one line with the two ways out, and both lead out."""
    await client.jetstream().add_stream(name="HOSTS_OWN", subjects=["workflow.>"])
    line = refused(await liveness("serve"))
    assert "HOSTS_OWN" in line
    assert "workflow.reclaimed" in line
    assert "events_stream" in line
    assert "event_prefix" in line

    service = await serve(event_prefix="liveness.events")
    await host.worker("A")
    await host.workflows("A")
    async with beating(client, ["A"]):
        pass
    await eventually(lambda: host.count("PENDING"), lambda count: count == 1)
    await outbox_is_empty(host)
    assert (await client.jetstream().stream_info("HOSTS_OWN")).state.messages == 0
    ours = await client.jetstream().get_last_msg("LIVENESS_EVENTS", "liveness.events.workflow.reclaimed")
    assert ours.data is not None
    await service.stop()
    await client.jetstream().delete_stream("LIVENESS_EVENTS")

    await serve(events_stream="HOSTS_OWN")
    config = (await client.jetstream().stream_info("HOSTS_OWN")).config
    assert config.subjects is not None
    assert {"workflow.>", "worker.expired"} <= set(config.subjects)
