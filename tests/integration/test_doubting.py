"""Workers that live and are not well: what is told of them, once, and what is marked in the host's registry."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec
import pytest
from nats.aio.client import Client

from liveness.doubting import AGAIN_SECONDS, Doubting
from liveness.errors import NotLeaderError
from liveness.eventdata import WorkerRecovered, WorkerSuspected, WorkerWedged
from liveness.hearing import Hearing
from liveness.lease import RELEASED
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.reports import Reports
from liveness.settings import Settings
from liveness.store import Doubt, Life, Store
from liveness.storms import Storms
from liveness.suspects import Suspects
from tests.conftest import HostTables, look_again
from tests.integration.conftest import Grant, case
from tests.integration.running import News, Serve, ask, beat
from tests.unit.makers import lease_of

INTERVAL, TTL, WEDGE = 2.0, 60.0, 30.0


class Eye:
    """A replica's doubts, by a hearing whose time the test lets pass."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.time = 100.0
        self.store = store
        self.leads = True
        self.book = LeaseTable(settings.heartbeat_timeout)
        self.hearing = Hearing(0.0, max_gap=settings.max_gap)
        self.hearing.start(0.0)
        self.storms = Storms(max_hold=600.0, shuffle=lambda _: None)
        self.suspects = Suspects(book=self.book, storms=self.storms, least=1.0)
        self.reports = Reports(leak_grace=settings.leak_grace, wedge_after=settings.wedge_after)
        self.doubting = Doubting(
            book=self.book,
            hearing=self.hearing,
            suspects=self.suspects,
            reports=self.reports,
            store=store,
            settings=settings,
            clock=lambda: self.time,
            leading=lambda: self.leads,
        )
        self.wait(0.0)

    def wait(self, seconds: float) -> None:
        """Let time pass in which everything is heard."""
        self.time += seconds
        self.hearing.now = self.hearing._proven_to = self.time

    def beat(self, *workers: str, **fields: Any) -> None:
        """Let workers beat that hold the epochs which Postgres has granted them."""
        for worker in workers:
            beat = Heartbeat(**({"interval": INTERVAL, "ttl": TTL} | fields))
            self.book.beat(worker, self.time, beat, self.time)
            lease = lease_of(self.book, worker)
            self.storms.heard(lease, beat.via, self.time)
            self.reports.hear(lease, beat.running, beat.progress, self.time, self.time, self.time)

    def lives(self, epochs: dict[str, int], **fields: Any) -> None:
        """Let workers beat for the first time, under these epochs."""
        self.beat(*epochs, **fields)
        for worker, epoch in epochs.items():
            self.book.granted(worker, epoch)

    async def look(self, seconds: float = 0.0) -> tuple[int, int]:
        """Look after so many seconds; return how many doubts were raised, and how many ended."""
        self.wait(seconds)
        done = await self.doubting.run_once()
        return done.raised, done.ended


@pytest.fixture
def eyes(stores: Callable[..., Any], settings: Callable[..., Settings]) -> Callable[..., Any]:
    """Make replicas with settings as given; the first one leads."""

    async def make(**overrides: Any) -> Eye:
        values = {"wedge_after": WEDGE} | overrides
        return Eye(await stores(**values), settings(**values))

    return make


@pytest.fixture
async def eye(eyes: Callable[..., Any]) -> Eye:
    """One that marks suspects."""
    made: Eye = await eyes(mark_suspects=True)
    return made


async def told(host: HostTables) -> list[tuple[str, str, Any]]:
    """Return type and worker of the events, with their data."""
    rows = await host.connection.fetch("SELECT type, worker, told FROM liveness.outbox ORDER BY seq")
    return [(row["type"], row["worker"], json.loads(row["told"])) for row in rows]


async def kinds(host: HostTables) -> list[str]:
    """Return the types of the events."""
    return [kind for kind, _, _ in await told(host)]


async def kept(host: HostTables) -> int:
    """Return how many doubts are kept."""
    return int(await host.connection.fetchval("SELECT count(*) FROM liveness.doubt"))


async def test_a_suspect_is_told_once_marked_and_taken_back(host: HostTables, eye: Eye, grant: Grant) -> None:
    """DEGRADED as long as it is silent, ONLINE again when it is heard; its work and epoch are its own throughout."""
    await host.worker("w1")
    (workflow,) = await host.workflows("w1")
    epoch = await grant("w1", TTL)
    eye.lives({"w1": epoch})

    assert await eye.look(3.0) == (0, 0)
    assert await eye.look(1.0) == (1, 0)
    assert await eye.look(1.0) == (0, 0)
    assert await host.worker_status("w1") == ["DEGRADED"]
    states = [eye.doubting.state_of(lease_of(eye.book, "w1"))]
    eye.beat("w1", draining=True)
    assert await eye.look(0.5) == (0, 1)
    states.append(eye.doubting.state_of(lease_of(eye.book, "w1")))
    assert states == ["suspect", "draining"]

    assert await host.worker_status("w1") == ["ONLINE"]
    assert await host.state(workflow) == ("RUNNING", "w1")
    (_, _, suspected), (_, _, recovered) = await told(host)
    assert (suspected["cause"], suspected["epoch"], suspected["ttl"]) == ("silent", epoch, TTL)
    assert suspected["last_heartbeat_at"] < suspected["suspected_at"]
    assert (recovered["former_reason"], recovered["epoch"], recovered["former_epoch"]) == ("suspected", epoch, epoch)
    assert recovered["expired_at"] is None
    assert await kept(host) == 0


async def test_the_events_are_as_the_contract_says(host: HostTables, eye: Eye, grant: Grant) -> None:
    """They decode, strictly, as what subscribers get."""
    eye.lives({"w1": await grant("w1", TTL)}, running=["a"], progress=7, interval=100.0)
    eye.wait(WEDGE)
    eye.beat("w1", running=["a"], progress=7)
    await eye.look()
    await eye.look(2 * INTERVAL)
    eye.wait(0.5)
    eye.beat("w1", running=["a"], progress=8)
    await eye.look()

    types = {
        "worker.suspected": WorkerSuspected,
        "worker.wedged": WorkerWedged,
        "worker.recovered": WorkerRecovered,
    }
    news = await told(host)
    assert sorted(kind for kind, _, _ in news) == ["worker.recovered"] * 2 + ["worker.suspected", "worker.wedged"]
    for kind, _, data in news:
        assert set(data) == set(types[kind].__struct_fields__)
        msgspec.convert(data, types[kind])


async def test_what_the_host_has_marked_is_left_as_it_is(host: HostTables, eye: Eye, grant: Grant) -> None:
    """We only ever undo a status that we set, and only set it where the worker was ONLINE."""
    await host.worker("w1", "DEGRADED")
    await host.worker("w1", "OFFLINE")
    marked = await host.worker("w1")
    eye.lives({"w1": await grant("w1", TTL)})
    await eye.look(4.0)
    assert await host.worker_status("w1") == ["DEGRADED", "OFFLINE", "DEGRADED"]
    await host.connection.execute("UPDATE worker SET status = 'OFFLINE' WHERE id = $1::uuid", marked)
    eye.beat("w1")
    await eye.look(1.0)

    assert await host.worker_status("w1") == ["DEGRADED", "OFFLINE", "OFFLINE"]
    assert await kept(host) == 0


async def test_unless_asked_to_nothing_is_marked(host: HostTables, eyes: Callable[..., Any], grant: Grant) -> None:
    """By default a suspect is only told of."""
    await host.worker("w1")
    eye = await eyes()
    eye.lives({"w1": await grant("w1", TTL)})

    assert await eye.look(4.0) == (1, 0)
    assert await host.worker_status("w1") == ["ONLINE"]


async def test_while_it_is_paused_nobody_is_marked(host: HostTables, eyes: Callable[..., Any], grant: Grant) -> None:
    """Who is suspected still when it is over, is then."""
    await host.worker("w1")
    eye = await eyes(mark_suspects=True)
    eye.doubting.paused = lambda: True
    eye.lives({"w1": await grant("w1", TTL)})

    assert await eye.look(4.0) == (1, 0)
    assert await host.worker_status("w1") == ["ONLINE"]
    eye.doubting.paused = lambda: False
    await eye.look(5.5)
    assert await host.worker_status("w1") == ["DEGRADED"]


async def test_in_mode_observe_nothing_is_marked(host: HostTables, eyes: Callable[..., Any]) -> None:
    """Though it was asked for; what is told is told as observed."""
    await host.worker("w1")
    eye = await eyes(mode="observe", mark_suspects=True)
    epochs = dict((await eye.store.epochs.grant([Life("w1", None, None, TTL)])).epochs)
    eye.lives(epochs)
    await eye.look(4.0)
    assert await host.worker_status("w1") == ["ONLINE"]
    eye.beat("w1")
    await eye.look(1.0)

    rows = await host.connection.fetch("SELECT type, observed FROM liveness.outbox ORDER BY seq")
    assert [tuple(row) for row in rows] == [("worker.suspected", True), ("worker.recovered", True)]


async def test_what_was_marked_stays_as_it_is_in_mode_observe(
    host: HostTables, eyes: Callable[..., Any], grant: Grant
) -> None:
    """Until somebody acts again, who sets it back."""
    await host.worker("w1")
    acting, observing = await eyes(mark_suspects=True), await eyes(mode="observe", mark_suspects=True)
    epoch = await grant("w1", TTL)
    acting.lives({"w1": epoch})
    assert await acting.look(4.0) == (1, 0)
    observing.wait(5.0)
    observing.lives({"w1": epoch})
    assert await observing.look() == (0, 1)
    assert await host.worker_status("w1") == ["DEGRADED"]

    again = await eyes(mark_suspects=True)
    again.lives({"w1": epoch})
    await again.look()
    assert await host.worker_status("w1") == ["ONLINE"]
    assert await kept(host) == 0


async def test_a_suspect_that_dies_was_online(host: HostTables, eye: Eye, grant: Grant) -> None:
    """The end marks it OFFLINE, and when it is heard again it is what it was before we doubted it."""
    await host.worker("w1")
    await host.worker("w1", "DEGRADED")
    epoch = await grant("w1", TTL)
    eye.lives({"w1": epoch})
    await eye.look(4.0)
    assert await host.worker_status("w1") == ["DEGRADED", "DEGRADED"]

    await eye.store.reclaims.settle([case("w1", epoch)])
    eye.book.end("w1", eye.time, RELEASED)
    eye.book.ended("w1", epoch, eye.time)
    assert await host.worker_status("w1") == ["OFFLINE", "OFFLINE"]
    await eye.look(1.0)
    assert await kept(host) == 0
    again = await grant("w1", TTL)
    await eye.store.epochs.recover({"w1": again})
    await eye.store.epochs.set_back()

    assert await host.worker_status("w1") == ["ONLINE", "DEGRADED"]
    assert await kinds(host) == ["worker.suspected", "worker.expired", "worker.recovered"]


async def test_a_suspect_that_was_restarted_is_online_again(host: HostTables, eye: Eye, grant: Grant) -> None:
    """A restart marks nobody OFFLINE: what we have marked is set back by the doubt's end, which nothing tells."""
    await host.worker("w1")
    epoch = await grant("w1", TTL)
    eye.lives({"w1": epoch})
    await eye.look(4.0)

    await eye.store.reclaims.settle([case("w1", epoch, reason="restarted", untouched_for=0.0)])
    again = await grant("w1", TTL)
    eye.beat("w1")
    lease_of(eye.book, "w1").epoch = again
    assert await eye.look(1.0) == (0, 1)

    assert await host.worker_status("w1") == ["ONLINE"]
    assert await kinds(host) == ["worker.suspected", "worker.expired"]


async def test_rows_that_the_host_holds_are_marked_and_set_back_later(
    host: HostTables, dsn: str, eye: Eye, grant: Grant
) -> None:
    """Nobody waits for them, and the other suspects are not held up."""
    await host.worker("w1")
    await host.worker("w2")
    eye.lives({"w1": await grant("w1", TTL), "w2": await grant("w2", TTL)})
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM worker WHERE worker_name = 'w1' FOR UPDATE")

    assert await eye.look(4.0) == (2, 0)
    assert (await host.worker_status("w1"), await host.worker_status("w2")) == (["ONLINE"], ["DEGRADED"])
    await transaction.rollback()
    await eye.look(AGAIN_SECONDS)
    assert await host.worker_status("w1") == ["DEGRADED"]

    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM worker WHERE worker_name = 'w1' FOR UPDATE")
    eye.beat("w1", "w2", interval=100.0)
    assert await eye.look(0.5) == (0, 2)
    assert (await host.worker_status("w1"), await host.worker_status("w2")) == (["DEGRADED"], ["ONLINE"])
    await transaction.rollback()
    await other.close()
    await eye.look(AGAIN_SECONDS)

    assert await host.worker_status("w1") == ["ONLINE"]
    assert await kept(host) == 0


async def test_what_the_registry_refuses_to_take_back_is_set_back_once_it_does_not(
    host: HostTables, eye: Eye, grant: Grant
) -> None:
    """A worker that is heard is not left DEGRADED for ever, because a trigger of the host's was wrong for a while."""
    await host.worker("w1")
    await host.worker("w2")
    eye.lives({"w1": await grant("w1", TTL), "w2": await grant("w2", TTL)})
    assert await eye.look(4.0) == (2, 0)
    await host.connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = 'check_violation'; END $$;"
        " CREATE TRIGGER refuse BEFORE UPDATE ON worker FOR EACH ROW"
        " WHEN (NEW.status = 'ONLINE' AND NEW.worker_name = 'w1') EXECUTE FUNCTION refuse()"
    )
    eye.beat("w1", "w2", interval=100.0)
    assert await eye.look(0.5) == (0, 2)
    assert (await host.worker_status("w1"), await host.worker_status("w2")) == (["DEGRADED"], ["ONLINE"])
    await host.connection.execute("DROP TRIGGER refuse ON worker")
    await eye.look(AGAIN_SECONDS)

    assert await host.worker_status("w1") == ["ONLINE"]
    assert await kept(host) == 0


async def test_the_next_leader_tells_nothing_twice_and_takes_back_what_the_former_one_told(
    host: HostTables, eyes: Callable[..., Any], grant: Grant
) -> None:
    """Also what only the former one knew, as a probe that failed: it is over with the next beat, and not before."""
    await host.worker("w1")
    former, following = await eyes(mark_suspects=True), await eyes(mark_suspects=True)
    epoch = await grant("w1", TTL)
    following.leads = False
    for one in (former, following):
        one.lives({"w1": epoch}, interval=100.0)
        await one.look(1.0)
    former.suspects.probe_failed("w1")
    assert await former.look(1.0) == (1, 0)
    following.wait(1.0)
    following.leads, former.leads = True, False

    assert await following.look(1.0) == (0, 0)
    assert await host.worker_status("w1") == ["DEGRADED"]
    following.wait(1.0)
    following.beat("w1")
    assert await following.look(1.0) == (0, 1)
    assert await host.worker_status("w1") == ["ONLINE"]
    assert await kinds(host) == ["worker.suspected", "worker.recovered"]


async def test_an_answer_that_was_lost_is_asked_for_again(
    host: HostTables, eye: Eye, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed is read, and told no second time."""
    eye.lives({"w1": await grant("w1", TTL)})
    raise_ = eye.store.doubts.raise_

    async def lost(doubts: Any) -> Any:
        await raise_(doubts)
        monkeypatch.undo()
        raise NotLeaderError("a test says so")

    monkeypatch.setattr(eye.store.doubts, "raise_", lost)
    with pytest.raises(NotLeaderError):
        await eye.look(4.0)

    assert await eye.look(0.5) == (0, 0)
    eye.beat("w1")
    assert await eye.look(0.5) == (0, 1)
    assert await kinds(host) == ["worker.suspected", "worker.recovered"]


async def test_a_doubt_is_noted_once_however_often_it_is_offered(host: HostTables, eye: Eye, grant: Grant) -> None:
    """Of one life; the next one's is another."""
    for _ in range(2):
        epoch = await grant("w1", TTL)
        for _ in range(2):
            doubt = Doubt(worker="w1", epoch=epoch, kind="suspected", cause="silent", ttl=TTL, silent_for=4.0)
            assert await eye.store.doubts.raise_([doubt]) == {("w1", "suspected")}
        await eye.store.reclaims.settle([case("w1", epoch)])

    assert await kinds(host) == ["worker.suspected", "worker.expired"] * 2


async def test_an_epoch_that_is_over_has_no_suspects(host: HostTables, eye: Eye, grant: Grant) -> None:
    """By Postgres, though not yet by the book."""
    await host.worker("w1")
    epoch = await grant("w1", TTL)
    eye.lives({"w1": epoch})
    await eye.store.reclaims.settle([case("w1", epoch)])

    assert await eye.look(4.0) == (0, 0)
    assert await kinds(host) == ["worker.expired"]
    assert await host.worker_status("w1") == ["OFFLINE"]


async def test_ten_thousand_suspects_are_two_statements(host: HostTables, eye: Eye) -> None:
    """One that tells, one that marks; and where nothing changes, none."""
    await host.connection.execute(
        "INSERT INTO worker (worker_name) SELECT 'w' || n FROM generate_series(1, 10000) AS n;"
        "INSERT INTO liveness.epoch (worker, epoch, ttl, term)"
        " SELECT 'w' || n, n, 60, 1 FROM generate_series(1, 10000) AS n"
    )
    # As many that are well, so that it is no storm.
    eye.lives({f"w{number}": number for number in range(1, 10_001)})
    eye.lives({f"x{number}": number for number in range(1, 10_001)})
    asked: list[str] = []
    fetch = eye.store.leader.fetch

    async def counted(statement: str, *parameters: Any) -> Any:
        asked.append(statement)
        return await fetch(statement, *parameters)

    eye.store.leader.fetch = counted  # type: ignore[method-assign]
    eye.wait(4.0)
    eye.beat(*(f"x{number}" for number in range(1, 10_001)))

    assert await eye.look() == (10_000, 0)
    assert len(asked) == 2
    assert await host.connection.fetchval("SELECT count(*) FROM worker WHERE status = 'DEGRADED'") == 10_000
    assert await eye.look() == (0, 0)
    assert len(asked) == 2


async def test_a_standstill_is_told_once_and_its_end_too(host: HostTables, eye: Eye, grant: Grant) -> None:
    """Nothing is taken, nothing is marked."""
    await host.worker("w1")
    (workflow,) = await host.workflows("w1")
    epoch = await grant("w1", TTL)
    eye.lives({"w1": epoch}, running=[workflow], progress=7)
    for _ in range(16):
        eye.wait(INTERVAL)
        eye.beat("w1", running=[workflow], progress=7)
        await eye.look()

    ((kind, worker, data),) = await told(host)
    assert (kind, worker, data["progress"], data["running"], data["epoch"]) == ("worker.wedged", "w1", 7, 1, epoch)
    assert await host.state(workflow) == ("RUNNING", "w1")
    assert await host.worker_status("w1") == ["ONLINE"]
    eye.beat("w1", running=[workflow], progress=8)
    await eye.look()
    assert (await told(host))[1][2]["former_reason"] == "wedged"
    for _ in range(16):
        eye.wait(INTERVAL)
        eye.beat("w1", running=[workflow], progress=8)
        await eye.look()
    assert await kinds(host) == ["worker.wedged", "worker.recovered", "worker.wedged"]


@pytest.mark.parametrize("runs", [True, False])
async def test_of_one_that_lists_nothing_postgres_says_whether_it_runs_anything(
    host: HostTables, eye: Eye, grant: Grant, *, runs: bool
) -> None:
    """It is asked only about those that stand still."""
    if runs:
        await host.workflows("w1")
    eye.lives({"w1": await grant("w1", TTL)}, progress=7)
    for _ in range(30):
        eye.wait(INTERVAL)
        eye.beat("w1", progress=7)
        await eye.look()

    assert await kinds(host) == (["worker.wedged"] if runs else [])


async def test_a_restart_of_the_service_does_not_end_a_standstill(eyes: Callable[..., Any], grant: Grant) -> None:
    """The first beat that a new replica hears says nothing of having moved."""
    former, following = await eyes(), await eyes()
    epoch = await grant("w1", TTL)
    former.lives({"w1": epoch}, running=["a"], progress=7)
    former.wait(WEDGE)
    former.beat("w1", running=["a"], progress=7)
    assert await former.look() == (1, 0)

    following.wait(1.0)
    following.lives({"w1": epoch}, running=["a"], progress=7)
    assert await following.look() == (0, 0)
    following.wait(1.0)
    following.beat("w1", running=["a"], progress=8)
    assert await following.look(0.5) == (0, 1)


async def test_one_that_postgres_refuses_does_not_hold_up_the_others(host: HostTables, eye: Eye, grant: Grant) -> None:
    """And is not offered again at once."""
    eye.lives({"w1": await grant("w1", TTL), "w2": await grant("w2", TTL)})
    await host.connection.execute("ALTER TABLE liveness.doubt ADD CHECK (worker <> 'w1')")

    assert await eye.look(4.0) == (1, 0)
    assert [worker for _, worker, _ in await told(host)] == ["w2"]
    assert "w1" in eye.doubting._refusals


async def test_from_a_silent_worker_to_the_event_and_back(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """By the whole service: a heartbeat that states its interval, DEGRADED in the registry, `liveness status`."""
    await host.worker("w1")
    await serve(mark_suspects=True)
    await beat(client, "w1", interval=0.5, ttl=60, incarnation="a")
    suspected = await news.until("worker.suspected")

    assert isinstance(suspected.data, WorkerSuspected)
    assert (suspected.subject, suspected.data.cause, suspected.data.incarnation) == ("w1", "silent", "a")
    status = await ask(client, "status")
    assert (status["workers"][0]["state"], status["suspects"]) == ("suspect", ["w1"])
    async with asyncio.timeout(20.0):
        while await host.worker_status("w1") != ["DEGRADED"]:
            await look_again()
    await beat(client, "w1", interval=0.5, ttl=60, incarnation="a")
    recovered = await news.until("worker.recovered")
    assert isinstance(recovered.data, WorkerRecovered)
    assert (recovered.data.former_reason, recovered.data.expired_at) == ("suspected", None)


async def test_from_a_wedged_worker_to_the_event(serve: Serve, client: Client, news: News) -> None:
    """By the whole service, on both ways in."""
    await serve(wedge_after=0.5)
    status: dict[str, Any] = {"workers": [], "wedged": []}
    async with asyncio.timeout(20.0):
        # Until behind the start, too, where a beat may have been under way for long.
        while not status["wedged"]:
            if not status["workers"] or status["workers"][0]["silent_for"] > 0.75:
                await beat(client, "w1", running=["a"], progress=7, ttl=60, incarnation="a")
            await look_again()
            status = await ask(client, "status")
    wedged = await news.until("worker.wedged")

    assert isinstance(wedged.data, WorkerWedged)
    assert (wedged.subject, wedged.data.progress, wedged.data.running) == ("w1", 7, 1)
    assert status["wedged"] == ["w1"]
