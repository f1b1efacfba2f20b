"""A pause: once it has returned nothing is taken any more, by nobody and for no reason, and it is never forgotten."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner, Result
from nats.aio.client import Client
from structlog.testing import capture_logs

from liveness.checks import CHECKS, Of, check_all
from liveness.cli import commands
from liveness.errors import DatabaseAwayError, PausedError
from liveness.pausing import Pausing
from liveness.postgres_settings import database_of
from liveness.reports import Leak
from liveness.service import Service
from liveness.settings import Settings
from liveness.store import Database, Leaked, Life, Progress, Store, Walk, pause, read_pause, resume
from liveness.verdicts import Outcome
from tests.conftest import SOON, HostTables, look_again
from tests.integration.conftest import Grant, case
from tests.integration.running import Serve, ask, beat, hello
from tests.integration.test_refused import due, poison

# Shorter than any session stands still that is looked at.
LOCK_SECONDS = 0.05


@pytest.fixture
async def operator(dsn: str) -> AsyncIterator[Database]:
    """Where an operator's command asks, which waits for no lock for long."""
    database = Database(dsn, LOCK_SECONDS)
    await database.connect()
    yield database
    await database.close()


async def paused(database: Database, seconds: float | None = None) -> None:
    """Pause as an operator does."""
    await pause(database, by="ops@desk", why="a test", seconds=seconds)


async def test_what_had_begun_to_take_is_waited_for_and_nothing_commits_behind_it(
    host: HostTables, store: Store, grant: Grant, operator: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reclaim is held open while somebody pauses: that does not return before it has committed."""
    await host.workflows("w1", 3)
    open_, go, waits = asyncio.Event(), asyncio.Event(), asyncio.Event()
    mark = store.reclaims._mark_offline

    async def held(*arguments: Any, **named: Any) -> None:
        open_.set()
        await go.wait()
        await mark(*arguments, **named)

    monkeypatch.setattr(store.reclaims, "_mark_offline", held)
    settling = asyncio.create_task(store.reclaims.settle([case("w1", await grant("w1"))]))
    await open_.wait()
    pausing = asyncio.create_task(pause(operator, by="ops", why="", seconds=None, on_wait=waits.set))
    async with asyncio.timeout(SOON):
        await waits.wait()

    # It is not over, and keeps everybody else from beginning already.
    assert not pausing.done()
    monkeypatch.undo()
    epoch = await grant("w2")
    await host.workflows("w2")
    with pytest.raises(PausedError, match=r"^paused by ops since \S+Z$"):
        await store.reclaims.settle([case("w2", epoch)])
    go.set()
    (verdict,) = await settling
    await pausing

    assert verdict.outcome is Outcome.ENDED
    assert (await host.count("PENDING"), await host.count("RUNNING", "w2")) == (3, 1)


async def test_who_looked_before_it_and_locks_behind_it_looks_again(
    host: HostTables, dsn: str, operator: Database
) -> None:
    """Between the look and its lock a whole pause fits: the look does not count."""
    text = await host.connection.fetchval("SELECT pg_get_functiondef('liveness.obey_pause'::regproc)")
    where = "paused_at IS NULL OR ends_at <= clock_timestamp()"
    assert text.count(where) == 1
    await host.connection.execute(text.replace(where, f"({where}) AND pg_advisory_xact_lock(7)::text IS NOT NULL"))
    await host.connection.execute("SELECT pg_advisory_lock(7)")
    other = await asyncpg.connect(dsn)
    taking = asyncio.create_task(
        other.execute(
            "INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count) VALUES ('workflow', 'a', 'w1', 1, 1)"
        )
    )
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    async with asyncio.timeout(SOON):
        while not await host.connection.fetchval(waiting):
            await look_again()

    await paused(operator)
    await host.connection.execute("SELECT pg_advisory_unlock(7)")

    with pytest.raises(asyncpg.PostgresError, match="paused by ops@desk"):
        await taking
    await other.close()


Take = Callable[[Store, HostTables], Awaitable[Callable[[], Awaitable[object]]]]


async def epoch_of(store: Store, worker: str = "w1") -> int:
    """Grant an epoch."""
    return (await store.epochs.grant([Life(worker, None, None, 10.0)])).epochs[worker]


async def a_verdict(store: Store, host: HostTables) -> Callable[[], Awaitable[object]]:
    """A life that Postgres knows ends."""
    await host.workflows("w1")
    offered = case("w1", await epoch_of(store))
    return lambda: store.reclaims.settle([offered])


async def a_sweep(store: Store, host: HostTables) -> Callable[[], Awaitable[object]]:
    """So does one that nobody ever heard of."""
    await host.workflows("w1")
    return lambda: store.reclaims.settle([case("w1", None, reason="orphaned")])


async def what_is_left(store: Store, host: HostTables) -> Callable[[], Awaitable[object]]:
    """The next chunk of a life that has ended goes back."""
    await _left(store, host)
    return lambda: store.reclaims.finish(Progress(), ["w1"])


async def what_is_left_row_by_row(store: Store, host: HostTables) -> Callable[[], Awaitable[object]]:
    """So it does where tables refuse some rows."""
    await _left(store, host)
    return lambda: store.reclaims.finish_apart(Walk(), "w1")


async def what_was_refused(store: Store, host: HostTables) -> Callable[[], Awaitable[object]]:
    """A row that its table had refused is tried again."""
    rows = await host.workflows("w1", 1)
    await host.connection.execute(
        "ALTER TABLE workflow_execution ADD CONSTRAINT no CHECK (kind <> 'poison' OR worker_id <> '')"
    )
    await host.connection.execute(
        "ALTER TABLE workflow_execution ADD CONSTRAINT owned CHECK (kind <> 'poison' OR worker_id IS NOT NULL)"
    )
    await poison(host, *rows)
    await store.reclaims.settle([case("w1", await epoch_of(store))])
    await store.reclaims.finish_apart(Walk(), "w1")
    await host.connection.execute("ALTER TABLE workflow_execution DROP CONSTRAINT owned")
    await due(host)
    return store.reclaims.retry


async def a_leak(store: Store, host: HostTables) -> Callable[[], Awaitable[object]]:
    """A row that its living worker does not list goes back."""
    (row,) = await host.workflows("w1")
    epoch = await epoch_of(store)
    (found,) = await store.leaks.unreported({"w1": []})
    leak = Leak(
        worker="w1",
        epoch=epoch,
        incarnation=None,
        work="workflow",
        id=row,
        mark=found.mark,
        reports=2,
        left_out_for=61.0,
    )
    return lambda: store.leaks.reclaim([Leaked(leak, 1.0, {})])


async def _left(store: Store, host: HostTables) -> None:
    await host.workflows("w1", 3)
    store.reclaims._chunk = 1
    await store.reclaims.settle([case("w1", await epoch_of(store))])


WAYS: list[Take] = [a_verdict, a_sweep, what_is_left, what_is_left_row_by_row, what_was_refused, a_leak]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_every_way_by_which_work_goes_back_is_closed(
    host: HostTables, store: Store, operator: Database, way: Take
) -> None:
    """Nothing of the host's is changed while it is paused, and all of it is when somebody has resumed."""
    await host.worker("w1")
    act = await way(store, host)
    looks = (
        "SELECT id, status, worker_id, xmin FROM workflow_execution UNION ALL SELECT id, status, '', xmin FROM worker"
    )
    await paused(operator)
    before = sorted(map(tuple, await host.connection.fetch(looks)))

    with pytest.raises(PausedError):
        await act()

    assert sorted(map(tuple, await host.connection.fetch(looks))) == before
    await resume(operator, by="ops")
    running = await host.count("RUNNING")
    await act()
    assert await host.count("RUNNING") < running


async def test_what_gives_goes_on(host: HostTables, store: Store, grant: Grant, operator: Database) -> None:
    """Epochs are granted, who was OFFLINE comes back ONLINE, beats are written down, news of a storm gets out."""
    await host.worker("w1", silent_for=100.0)
    await store.reclaims.settle([case("w1", await grant("w1"))])
    assert await host.worker_status("w1") == ["OFFLINE"]
    await paused(operator)

    await store.epochs.recover({"w1": await grant("w1")})
    await store.epochs.set_back()
    await store.host.checkpoint({"w1": 0.0})
    await store.outbox.add("liveness.storm", "nats", {})

    assert await host.worker_status("w1") == ["ONLINE"]
    assert ("liveness.storm", "nats") in await host.outbox()


async def test_it_is_known_who_paused_and_it_ends_by_itself_if_asked_to(host: HostTables, operator: Database) -> None:
    """To pause anew changes who, why and how long, and not since when."""
    await paused(operator)
    first, _ = await read_pause(operator)
    assert first is not None
    second = await pause(operator, by="night shift", why="longer", seconds=3600.0)

    assert (second.by, second.why, second.since) == ("night shift", "longer", first.since)
    assert second.left == pytest.approx(3600.0, abs=SOON)
    await host.connection.execute("UPDATE liveness.pause SET ends_at = clock_timestamp()")
    assert await read_pause(operator) == (None, None)
    assert not await resume(operator, by="ops")
    await paused(operator)
    assert await resume(operator, by="day shift")
    assert await read_pause(operator) == (None, "day shift")


async def test_the_commands_say_what_they_did(
    dsn: str, empty_dsn: str, operator: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For people and for scripts, whatever else of the schema is old; without one they say what makes it."""

    async def run(*arguments: str, of: str = dsn) -> Result:
        monkeypatch.setenv("LIVENESS_POSTGRES_DSN", of)
        return await asyncio.to_thread(CliRunner().invoke, commands, arguments)

    old = await asyncpg.connect(dsn)
    await old.execute(
        "DELETE FROM liveness.migration WHERE version > 12; DROP ROLE IF EXISTS brake; CREATE ROLE brake LOGIN;"
        " GRANT USAGE ON SCHEMA liveness TO brake; GRANT SELECT ON liveness.pause TO brake"
    )
    braking = dsn.replace("postgres@", "brake@")
    try:
        wish = str((await run("pause", of=braking)).exception)
        assert wish.startswith("the role brake may not read and write liveness.pause: GRANT")
        await old.execute(wish.partition(": ")[2])
        assert (await run("pause", of=braking)).exit_code == 0
        assert (await run("resume", of=braking)).exit_code == 0
    finally:
        await old.execute("DROP OWNED BY brake; DROP ROLE brake")
        await old.close()

    said = await run("pause", "--reason", "two\nlines", "--for", "15m", "--by", "ops", "--json")
    answer = json.loads(said.output)
    assert (answer["by"], answer["why"], said.exit_code) == ("ops", "two lines", 0)
    assert answer["left"] == pytest.approx(900.0, abs=SOON)
    where = f"in the database {database_of(dsn)}"
    _, second, third = (await run("pause")).output.splitlines()
    assert (second, third.startswith("nothing is taken from anybody")) == (where, True)
    found, _ = await read_pause(operator)
    assert found is not None
    assert ("@" in found.by, found.why, found.left) == (True, "", None)
    assert json.loads((await run("resume", "--json")).output) == {"was_paused": True}
    assert (await run("resume")).output == f"it was not paused, {where}\n"
    assert "run `liveness migrate`" in str((await run("pause", of=empty_dsn)).exception)
    assert (await run("pause", "--for", "soon")).exit_code == 2


async def test_its_row_has_to_stay(host: HostTables) -> None:
    """Without it nothing would be taken ever again."""
    for statement in ("DELETE FROM liveness.pause", "TRUNCATE liveness.pause"):
        with pytest.raises(asyncpg.RaiseError, match="has to stay"):
            await host.connection.execute(statement)


async def test_a_pause_whose_row_somebody_holds_says_so(host: HostTables, operator: Database) -> None:
    """It has not returned, so nothing is promised."""
    async with host.connection.transaction():
        await host.connection.execute("SELECT FROM liveness.pause FOR UPDATE")
        with pytest.raises(DatabaseAwayError):
            await paused(operator)


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(SOON):
        while not await look():
            await look_again()


def of(service: Service) -> Pausing:
    """Return what the service knows of the pause."""
    assert service.parts is not None
    return service.parts.pausing


async def test_a_service_holds_what_it_would_take_and_takes_it_when_somebody_resumes(
    host: HostTables, serve: Serve, client: Client, operator: Database, settings: Callable[..., Settings]
) -> None:
    """Silence, a goodbye and a restart are told, and held; a worker that is heard again keeps its work."""
    service = await serve(heartbeat_timeout=1.0, min_ttl=0.3, gap_grace=0.1, workflow_stuck_timeout=1.0)
    for worker in ("silent", "leaves", "restarts", "back"):
        await host.worker(worker)
        await host.workflows(worker)
        await beat(client, worker, incarnation="a", uptime=100.0, ttl=0.3)
    await until(lambda: _granted(service, 4))
    await paused(operator)
    await of(service).look()
    with capture_logs() as logs:
        await client.publish("liveness.goodbye.leaves", b'{"incarnation": "a"}')
        await client.publish("liveness.hello.restarts", b'{"incarnation": "b", "ttl": 60, "uptime": 0}')
        await until(lambda: _waiting(client, 4))
        await of(service).run_once()

        assert {(line["worker"], line["reason"], line["items"]) for line in logs if line["event"] == "would_end"} == {
            ("silent", "lapsed", 1),
            ("back", "lapsed", 1),
            ("leaves", "released", 1),
            ("restarts", "restarted", 1),
        }
    assert await host.count("RUNNING") == 4
    assert await host.worker_status("silent") == ["ONLINE"]
    assert (await hello(client, "new", incarnation="n", uptime=0.0))["epoch"] is not None
    answer = await ask(client, "status")
    assert (answer["paused"]["by"], answer["paused"]["why"], answer["troubles"]) == ("ops@desk", "a test", [])
    assert [line.partition(" since ")[0] for line in service.notes()] == ["paused by ops@desk"]
    assert "paused by ops@desk" in service._status()
    assert b"liveness_paused_seconds 0.0" not in (await service.metrics.text(""))[0]
    for verb, request in (("reclaim", {"worker": "silent", "force": True}), ("sweep", {})):
        assert "paused by ops@desk" in (await ask(client, verb, **request))["error"]
        answer = await ask(client, verb, dry_run=True, **request)
        assert "error" not in answer
    # What would go at `resume`, beside what a sweep finds.
    assert sorted(answer["ending"]) == ["back", "leaves", "restarts", "silent"]
    story = await ask(client, "why", worker="silent")
    assert "held, because it is paused by ops@desk" in story["worker"]["sentence"]
    found = await check_all(settings(), 5.0, checks=[one for one in CHECKS if one[1] is Of.POSTGRES])
    assert [finding.check for finding in found][:1] == ["paused"]

    await beat(client, "back", incarnation="a", uptime=103.0, ttl=60.0)
    await until(lambda: _waiting(client, 3))
    await resume(operator, by="ops")
    await of(service).look()
    await until(lambda: _pending(host, 3))

    assert await host.count("RUNNING", "back") == 1
    evidence = await host.connection.fetchval(
        "SELECT evidence ->> 'paused' FROM liveness.expiration WHERE worker = 'silent'"
    )
    assert evidence.startswith("held, paused by ops@desk since ")
    assert service.notes() == []


async def _granted(service: Service, count: int) -> bool:
    assert service.parts is not None
    return sum(lease.epoch is not None for lease in service.parts.book) == count


async def _waiting(client: Client, count: int) -> bool:
    return bool((await ask(client, "status"))["ending"] == count)


async def _pending(host: HostTables, count: int) -> bool:
    return await host.count("PENDING") == count
