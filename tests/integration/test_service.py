"""The whole service in this process, on real servers: from a heartbeat to an event."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import asyncpg
import msgspec
import pytest
from nats.aio.client import Client

from liveness import api
from liveness import service as service_module
from liveness.answers import Swept
from liveness.embedded import NatsServer, PostgresServer
from liveness.eventdata import WorkflowReclaimed, WorkReclaimed
from liveness.leadership import Leadership
from liveness.service import Service
from liveness.settings import Settings, load
from liveness.store import Database, migrate
from tests.conftest import SOON, HostTables, delivered, look_again
from tests.integration.running import News, Serve, ask, beat


async def test_a_worker_that_falls_silent_loses_its_work(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """From its only heartbeat to the event that a subscriber receives."""
    await host.worker("w1")
    (workflow,) = await host.workflows("w1")
    await serve(heartbeat_timeout=60.0)
    await beat(client, "w2")
    await ask(client, "status")
    (other,) = await host.workflows("w2")
    await beat(client, "w1", ttl=1, incarnation="a")

    # w1 was restored with the default ttl: that promise is kept.
    status = {worker["worker"]: worker for worker in (await ask(client, "status"))["workers"]}
    assert status["w1"]["ttl"] == 60.0
    assert status["w1"]["running"] == 1
    await beat(client, "w3", ttl=1, incarnation="c")
    (of_w3,) = await host.workflows("w3")

    event = await news.until("workflow.reclaimed")

    assert isinstance(event.data, WorkflowReclaimed)
    assert (event.data.workflow_id, event.data.former_worker, event.data.incarnation) == (of_w3, "w3", "c")
    assert await host.state(of_w3) == ("PENDING", None)
    assert await host.state(workflow) == ("RUNNING", "w1")
    assert await host.state(other) == ("RUNNING", "w2")


async def test_work_of_the_host_s_own_tables_and_no_registry(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """From the settings to the event: who beats is registered with us, and its silence is told by the work's name."""
    await host.connection.execute(
        "CREATE TABLE jobs (id bigserial PRIMARY KEY, state text NOT NULL DEFAULT 'todo', held_by uuid, lane text,"
        " changed timestamptz NOT NULL DEFAULT now()); CREATE INDEX ON jobs (held_by) WHERE state = 'doing'"
    )
    work = {
        "name": "job", "table": "jobs", "status": "state", "owner": "held_by", "running": "doing", "waiting": "todo",
        "queue": "lane", "touched": "changed", "touch": ["changed"],
    }  # fmt: skip
    await serve(work=[work])
    worker = "0a0a0a0a-0000-4000-8000-00000000000a"
    await beat(client, worker, ttl=1, incarnation="a")
    job = await host.connection.fetchval(
        "INSERT INTO jobs (state, held_by, lane) VALUES ('doing', $1::text::uuid, 'fast') RETURNING id::text", worker
    )

    event = await news.until("job.reclaimed")

    assert type(event.data) is WorkReclaimed
    assert (event.subject, event.data.former_worker, event.data.queue) == (job, worker, "fast")
    assert await host.connection.fetchval("SELECT state FROM jobs") == "todo"
    rows = await host.connection.fetch("SELECT worker_name, status FROM liveness.worker")
    assert [tuple(row) for row in rows] == [(worker, "OFFLINE")]


async def test_a_goodbye_gives_the_work_back_at_once(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """Without waiting for any ttl, even when it follows the first beat immediately."""
    await serve()
    await host.worker("w1")
    (workflow,) = await host.workflows("w1")
    await beat(client, "w1", ttl=60, incarnation="a")
    await client.publish("liveness.goodbye.w1", b'{"incarnation": "a"}')

    event = await news.until("workflow.reclaimed")

    assert isinstance(event.data, WorkflowReclaimed)
    assert (event.data.workflow_id, event.data.reason) == (workflow, "released")
    assert await host.worker_status("w1") == ["OFFLINE"]


async def test_a_worker_that_beats_again_lives_again(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """Under a new epoch, ONLINE again, told to subscribers and to the worker itself."""
    await host.worker("w1")
    await serve(heartbeat_timeout=1.0)
    told: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(message: Any) -> None:
        told.put_nowait(message.data)

    await client.subscribe("liveness.superseded.w1", cb=take)
    await beat(client, "w1", incarnation="a")
    ended = await news.until("worker.expired")
    await beat(client, "w1", incarnation="a")
    recovered = await news.until("worker.recovered")

    async with asyncio.timeout(SOON):
        superseded = msgspec.json.decode(await told.get())
    former, new = msgspec.to_builtins(ended.data), msgspec.to_builtins(recovered.data)
    assert new["former_epoch"] == former["epoch"] < new["epoch"]
    assert superseded == {
        "epoch": former["epoch"],
        "incarnation": "a",
        "new_epoch": new["epoch"],
        "new_incarnation": "a",
    }
    async with asyncio.timeout(SOON):
        while await host.worker_status("w1") != ["ONLINE"]:
            await look_again()


async def test_unknown_workers_are_served_and_registered_only_if_asked(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """No host row is invented."""
    await serve(heartbeat_timeout=1.0)
    (workflow,) = await host.workflows("stranger")
    await beat(client, "stranger")

    event = await news.until("workflow.reclaimed")

    assert event.subject == workflow
    assert await host.worker_status("stranger") == []


async def test_a_thousand_workers_half_of_which_fall_silent(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """Five thousand events with five thousand ids for the silent half's rows; the other half's are untouched."""
    await host.connection.execute("INSERT INTO worker (worker_name) SELECT 'w' || n FROM generate_series(0, 999) AS n")
    await host.connection.execute(
        "INSERT INTO workflow_execution (worker_id, status) SELECT 'w' || n, 'RUNNING'"
        " FROM generate_series(0, 999) AS n, generate_series(1, 10)"
    )
    await serve(heartbeat_timeout=3.0)
    stop = asyncio.Event()

    async def living() -> None:
        while not stop.is_set():
            for number in range(1, 1000, 2):
                await client.publish(f"liveness.heartbeat.w{number}")
            await delivered(client)
            try:
                await asyncio.wait_for(stop.wait(), 0.5)
            except TimeoutError:
                continue

    beating = asyncio.create_task(living())
    received: dict[str, str] = {}
    async with asyncio.timeout(60):
        while len(received) < 5000:
            event = await news.until("workflow.reclaimed")
            assert event.id not in received
            received[event.id] = event.subject
    stop.set()
    await beating

    owners = await host.connection.fetch(
        "SELECT worker_id, count(*) AS items FROM workflow_execution WHERE status = 'RUNNING' GROUP BY 1"
    )
    assert {row["worker_id"]: row["items"] for row in owners} == {f"w{number}": 10 for number in range(1, 1000, 2)}
    assert await host.count("PENDING") == 5000
    assert len(set(received.values())) == 5000


async def test_a_service_that_stops_before_it_has_begun_to_lead_leaves_the_lead(
    nats: NatsServer, host: HostTables, settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds its row from its start, and nobody who divides the workers otherwise leads while that looks held."""
    learning = asyncio.Event()

    async def learn(_: Leadership) -> bool:
        learning.set()
        await asyncio.Event().wait()
        return False

    monkeypatch.setattr(Leadership, "learn", learn)
    service, stop = Service(settings(nats_url=nats.url)), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await asyncio.wait_for(learning.wait(), SOON)
    assert await host.connection.fetchval("SELECT holder FROM liveness.leader") is not None

    stop.set()
    await running

    assert await host.connection.fetchval("SELECT holder FROM liveness.leader") is None


async def test_a_restart_takes_nothing_from_the_living(
    nats: NatsServer, host: HostTables, settings: Callable[..., Settings], serve: Serve, client: Client
) -> None:
    """A ttl of ten minutes, stated once, is still promised after a restart of the service."""
    (workflow,) = await host.workflows("slow")
    first, stop = Service(settings(nats_url=nats.url, heartbeat_timeout=1.0)), asyncio.Event()
    running = asyncio.create_task(first.run(stop))
    await first.started.wait()
    await beat(client, "slow", ttl=600)
    async with asyncio.timeout(SOON):
        while await host.connection.fetchval("SELECT ttl FROM liveness.epoch WHERE worker = 'slow'") != 600.0:
            await look_again()
    stop.set()
    await running

    await serve(heartbeat_timeout=1.0)
    worker = (await ask(client, "status"))["workers"][0]

    assert (worker["worker"], worker["ttl"], worker["silent_for"]) == ("slow", 600.0, None)
    assert worker["remaining"] > 590.0
    assert await host.state(workflow) == ("RUNNING", "slow")


async def test_a_reconnect_owes_everyone_a_full_ttl(nats: NatsServer, serve: Serve, client: Client) -> None:
    """Beats may have been lost while NATS was away."""
    service = await serve()
    await beat(client, "w1", ttl=5)
    await ask(client, "status")
    parts = service.parts
    assert parts is not None
    lease = parts.book.get("w1")
    assert lease is not None
    before = parts.book.lines.deadline(lease)
    deaf, hears = asyncio.Event(), asyncio.Event()
    down, up = parts.bus.on_down, parts.bus.on_up

    def on_down() -> None:
        down()
        deaf.set()

    def on_up() -> None:
        up()
        hears.set()

    parts.bus.on_down, parts.bus.on_up = on_down, on_up

    nats.kill()
    async with asyncio.timeout(SOON):
        await deaf.wait()
        assert parts.hearing.deaf(parts.clock())
        assert service.troubles() == ["NATS: not connected, so nothing can be heard"]
        await nats.start()
        await hears.wait()

    # From the moment up to which silence may be believed, which is when the sweep listens anew.
    assert parts.book.lines.deadline(lease) == parts.sweep.listening_since + 5.0 > before


async def test_a_service_that_cannot_lead_for_a_lock_is_not_ready(dsn: str, serve: Serve) -> None:
    """While nobody acts, an orchestrator has to know it; once the row is free, all is well by itself."""
    holder = await asyncpg.connect(dsn)
    holding = holder.transaction()
    await holding.start()
    await holder.execute("SELECT FROM liveness.leader FOR KEY SHARE")
    service = await serve(lock_timeout=0.01)

    async with asyncio.timeout(SOON):
        while not service.troubles():
            await look_again()
        assert "pg_locks" in service.troubles()[0]
        await holding.rollback()
        while service.troubles():
            await look_again()
    await holder.close()


async def test_the_probes_of_an_orchestrator_are_answered(serve: Serve) -> None:
    """Alive and ready, and 404 for anything else."""
    service = await serve()

    def get(path: str) -> tuple[int, str]:
        try:
            with urlopen(f"http://127.0.0.1:{service.http.port}{path}") as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            with error:
                return error.code, error.read().decode()

    assert await asyncio.to_thread(get, "/livez") == (200, "alive\n")
    assert await asyncio.to_thread(get, "/readyz") == (200, "ready\n")
    assert (await asyncio.to_thread(get, "/nothing"))[0] == 404
    service._waiting_for = "Postgres: away"
    assert await asyncio.to_thread(get, "/readyz") == (503, "Postgres: away\n")
    service._waiting_for = None


async def test_a_command_reclaims_only_whom_it_may(host: HostTables, serve: Serve, client: Client) -> None:
    """The work of a worker that lives is taken with force only."""
    await host.workflows("restored", 2)
    await serve()
    (workflow,) = await host.workflows("w1")
    await host.workflows("nobody")
    await beat(client, "w1", ttl=600)

    refusal = await ask(client, "reclaim", worker="w1")
    dry = await ask(client, "reclaim", worker="w1", dry_run=True, force=True)
    assert "--force" in refusal["error"]
    assert (dry["held"], dry["reclaimed"]) == (1, 0)
    assert await host.state(workflow) == ("RUNNING", "w1")
    forced = await ask(client, "reclaim", worker="w1", force=True)

    assert (forced["held"], forced["reclaimed"]) == (1, 1)
    assert await host.state(workflow) == ("PENDING", None)
    # Restored because it holds work: it has a lease too, and no heartbeat.
    assert "error" in await ask(client, "reclaim", worker="restored")
    assert (await ask(client, "reclaim", worker="restored", force=True))["reclaimed"] == 2
    assert (await ask(client, "reclaim", worker="nobody"))["reclaimed"] == 1
    assert (await ask(client, "reclaim", worker="never seen"))["held"] == 0


async def test_a_command_takes_no_work_of_a_name_whose_beats_were_turned_away(
    host: HostTables, serve: Serve, client: Client
) -> None:
    """Nobody can say that it is dead; with force it is taken on the operator's word."""
    await serve(max_grants=0.0)
    await beat(client, "w1", ttl=600)
    await host.workflows("w2")

    refusal = await ask(client, "reclaim", worker="w2")
    assert "may have been turned away" in refusal["error"]
    (bound,) = (await ask(client, "status"))["bounds"]
    assert bound.startswith("grants: ")

    assert (await ask(client, "reclaim", worker="w2", force=True))["reclaimed"] == 1


async def test_a_command_says_that_postgres_has_given_no_verdict_yet(
    dsn: str, host: HostTables, serve: Serve, client: Client
) -> None:
    """And not that there was nothing to put back; it goes back when the row is free."""
    await serve()
    (workflow,) = await host.workflows("w1")
    await beat(client, "w1", ttl=600)
    async with asyncio.timeout(SOON):
        while not await host.connection.fetchval("SELECT count(*) FROM liveness.epoch"):
            await look_again()
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM liveness.epoch FOR UPDATE")

    refusal = await ask(client, "reclaim", worker="w1", force=True)
    assert "has not taken it yet" in refusal["error"]
    await transaction.rollback()
    await other.close()
    async with asyncio.timeout(SOON):
        while (await host.state(workflow))[0] == "RUNNING":
            await look_again()


async def test_an_answer_that_nats_cannot_carry_says_so(
    serve: Serve, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep that finds a great deal is not answered with silence."""
    service = await serve()
    assert service.parts is not None

    async def finds_a_great_deal(*, dry_run: bool) -> Swept:
        return Swept(dry_run=dry_run, stale=["w" * 200] * 6_000)

    monkeypatch.setattr(service.parts.sweep, "run_once", finds_a_great_deal)

    assert "raise its max_payload" in (await ask(client, "sweep"))["error"]


async def test_how_it_is_and_why_are_told_while_a_sweep_goes_on(
    serve: Serve, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks that does so because something takes too long."""
    service = await serve()
    assert service.parts is not None
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def takes_long(*, dry_run: bool) -> Swept:
        begun.set()
        await goes_on.wait()
        return Swept(dry_run=dry_run)

    monkeypatch.setattr(service.parts.sweep, "run_once", takes_long)
    async with asyncio.timeout(SOON):
        sweeping = asyncio.create_task(ask(client, "sweep", dry_run=True))
        await begun.wait()
        answers = await ask(client, "status"), await ask(client, "why", worker="w1")
        assert not sweeping.done()
        goes_on.set()
        await sweeping

    assert ["error" in answer for answer in answers] == [False, False]


async def test_how_it_is_is_told_while_postgres_is_slow(
    serve: Serve, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without what only Postgres knows, and it says so; and nobody waits for that who asks why."""
    monkeypatch.setattr(api, "PATIENCE", 0.2)
    service = await serve()
    assert service.parts is not None
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def takes_long(*_: object) -> None:
        begun.set()
        await goes_on.wait()

    await beat(client, "w1", ttl=600)
    monkeypatch.setattr(service.parts.store.host, "running", takes_long)
    async with asyncio.timeout(SOON):
        while not (status := await ask(client, "status"))["workers"]:
            await look_again()
        await begun.wait()
        story = await ask(client, "why", worker="w1")
        goes_on.set()

    assert (status["troubles"], status["postgres"]) == (["Postgres: no answer within 0.2 s"], False)
    assert [worker["running"] for worker in status["workers"]] == [None]
    assert story["worker"]["owner"]["standing"]["state"] == "live"


@pytest.mark.parametrize("payload", [b"{", b'{"worker": 7}', b'{"worker": ""}', b"\xff", b"[]"])
async def test_a_nonsensical_request_is_answered(serve: Serve, client: Client, payload: bytes) -> None:
    """With an error that says which request it was."""
    await serve()

    reply = await client.request("liveness.api.reclaim", payload, timeout=SOON)

    assert "the request reclaim does not decode" in msgspec.json.decode(reply.data)["error"]


async def test_what_lapses_while_postgres_is_away_is_settled_when_it_is_back(
    tmp_path: Path, nats: NatsServer, client: Client
) -> None:
    """Nothing is forgotten, and a worker that beats before the verdict keeps its work."""
    postgres = PostgresServer(tmp_path / "postgres", durable=True)
    await postgres.start()
    database = Database(postgres.dsn)
    await migrate(database, "public", host_tables=True)
    await database.close()
    made, _ = load({}, postgres_dsn=postgres.dsn, nats_url=nats.url, http_listen="127.0.0.1:0", heartbeat_timeout=1.0)
    service, stop = Service(made), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    await service.started.wait()
    parts = service.parts
    assert parts is not None
    connection = await asyncpg.connect(postgres.dsn)
    await beat(client, "dead")
    await beat(client, "alive")
    async with asyncio.timeout(SOON):
        while await connection.fetchval("SELECT count(*) FROM liveness.epoch") < 2:
            await look_again()
    for name in ("dead", "alive"):
        await connection.execute("INSERT INTO workflow_execution (worker_id, status) VALUES ($1, 'RUNNING')", name)
    connection.terminate()
    postgres.kill()
    async with asyncio.timeout(SOON):
        while len(parts.book.endings) < 2:
            await look_again()
        assert parts.book.endings.keys() == {"dead", "alive"}
        await beat(client, "alive", ttl=600)
        while "alive" in parts.book.endings:
            await look_again()
    # It has a patience of its own: a slow disk makes its recovery slow.
    await postgres.start()
    host = HostTables(await asyncpg.connect(postgres.dsn))
    async with asyncio.timeout(SOON):
        while parts.book.endings:
            await look_again()

    owners = await host.connection.fetch("SELECT worker_id, status FROM workflow_execution ORDER BY worker_id")
    assert [(row["worker_id"], row["status"]) for row in owners] == [("alive", "RUNNING"), (None, "PENDING")]
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.expiration") == 1
    await host.connection.close()
    stop.set()
    await running
    await postgres.stop()


async def test_the_relay_knows_of_all_that_is_more_urgent(serve: Serve) -> None:
    """Lives that wait for their verdict, rows of one that were too many, and what a sweep has found."""
    parts = (await serve()).parts
    assert parts is not None
    urgent = parts.relay._urgent

    assert not urgent()
    for duty in (parts.expiry, parts.sweep):
        duty.more = True
        assert urgent()
        duty.more = False
    parts.finish._with_more = 1
    assert urgent()
    parts.finish._with_more = 0
    assert not urgent()


async def test_names_on_trust_are_told(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, at the start, where NATS asks nobody who it is."""
    told: list[str] = []
    monkeypatch.setattr(service_module.log, "warning", lambda event, **_: told.append(event))

    await serve()

    assert told.count("names_on_trust") == 1
