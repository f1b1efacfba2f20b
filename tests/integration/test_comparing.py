"""Rows that leaked: RUNNING in the name of a worker that lives and does not list them."""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec
import pytest
from nats.aio.client import Client

from liveness.comparing import Compared, Comparing
from liveness.errors import NotLeaderError
from liveness.eventdata import WorkerLeaked, WorkflowReclaimed
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.reports import Reports
from liveness.settings import Settings
from liveness.store import Life, Progress, Store
from tests.conftest import HostTables, look_again
from tests.integration.conftest import Grant, case, finish_chunk
from tests.integration.running import News, Serve, ask, beat
from tests.unit.makers import lease_of

GRACE = 60.0


class Eye:
    """What a replica compares, by a hearing whose time the test lets pass."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.time = 100.0
        self.store = store
        self.leads = True
        self.counts: Counter[str] = Counter()
        self.book = LeaseTable(1_000.0)
        self.hearing = Hearing(0.0, max_gap=settings.max_gap)
        self.hearing.start(0.0)
        self.reports = Reports(leak_grace=settings.leak_grace, wedge_after=0.0)
        self.comparing = Comparing(
            book=self.book,
            hearing=self.hearing,
            reports=self.reports,
            store=store,
            settings=settings,
            clock=lambda: self.time,
            counts=self.counts,
            leading=lambda: self.leads,
        )
        self.wait(0.0)

    def wait(self, seconds: float) -> None:
        """Let time pass in which everything is heard."""
        self.time += seconds
        self.hearing.now = self.hearing._proven_to = self.time

    def beat(self, worker: str, running: list[str] | None, epoch: int | None = None) -> None:
        """Let a worker beat, the first time under this epoch."""
        self.book.beat(worker, self.time, Heartbeat(incarnation="a"), self.time)
        if epoch is not None:
            self.book.granted(worker, epoch)
        self.reports.hear(lease_of(self.book, worker), running, None, self.time, self.time, self.time)

    async def look(self, *beats: tuple[str, list[str] | None], after: float = 1.0) -> Compared:
        """Let time pass and workers beat, and look."""
        self.wait(after)
        for worker, running in beats:
            self.beat(worker, running)
        self.wait(0.25)
        return await self.comparing.run_once()

    async def until_leaked(self, *beats: tuple[str, list[str] | None]) -> Compared:
        """Look three times, the last time more than the grace after the first report that counts."""
        first = await self.look(*beats)
        second = await self.look(*beats)
        assert (first, second) == (Compared(), Compared())
        return await self.look(*beats, after=GRACE + 1.0)


@pytest.fixture
def eyes(stores: Callable[..., Any], settings: Callable[..., Settings]) -> Callable[..., Any]:
    """Make replicas with settings as given; the first one leads."""

    async def make(**overrides: Any) -> Eye:
        values = {"leak_grace": GRACE} | overrides
        return Eye(await stores(**values), settings(**values))

    return make


@pytest.fixture
async def reporting(eyes: Callable[..., Any]) -> Eye:
    """One that tells of leaks, which is the default."""
    made: Eye = await eyes()
    return made


@pytest.fixture
async def reclaiming(eyes: Callable[..., Any]) -> Eye:
    """One that puts leaked rows back."""
    made: Eye = await eyes(leak_action="reclaim")
    return made


async def told(host: HostTables) -> list[tuple[str, Any]]:
    """Return type and data of the events."""
    rows = await host.connection.fetch("SELECT type, told, items FROM liveness.outbox ORDER BY seq")
    return [(row["type"], json.loads(row["told"])) for row in rows]


async def test_a_leaked_row_is_told_of_once_and_left_as_it_is(host: HostTables, reporting: Eye, grant: Grant) -> None:
    """By default nothing is taken; what the worker lists, and what others hold, is nobody's leak."""
    (leaked, held) = await host.workflows("w1", 2)
    (task,) = await host.tasks("w1")
    (other,) = await host.workflows("w2")
    reporting.beat("w1", [held], await grant("w1"))
    reporting.beat("w2", None, await grant("w2"))

    done = await reporting.until_leaked(("w1", [held]), ("w2", None))

    assert (done.leaked, done.told, done.items) == (2, 2, 0)
    assert (await host.state(leaked), await host.state(other)) == (("RUNNING", "w1"), ("RUNNING", "w2"))
    news = await told(host)
    assert {(kind, data["work"], data["work_id"]) for kind, data in news} == {
        ("worker.leaked", "workflow", leaked),
        ("worker.leaked", "task", task),
    }
    for _, data in news:
        assert set(data) == set(WorkerLeaked.__struct_fields__)
        msgspec.convert(data, WorkerLeaked)
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.leak WHERE NOT reclaimed") == 2
    again = await reporting.until_leaked(("w1", [held]))
    assert (again.leaked, again.told) == (0, 0)
    assert len(await told(host)) == 2
    assert reporting.counts["leaks"] == 2


async def test_rows_beyond_those_of_one_look_are_told_of_as_well(
    host: HostTables, reporting: Eye, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has forgotten more than a look finds does not hide what others have, though nothing is put back."""
    monkeypatch.setattr("liveness.store.leaks.FOUND_MOST", 2)
    await host.workflows("w1", 2)
    await host.workflows("w2")
    for worker in ("w1", "w2"):
        reporting.beat(worker, [], await grant(worker))

    done = [(await reporting.until_leaked(("w1", []), ("w2", []))).told for _ in range(2)]

    assert done == [2, 1]


async def test_a_leaked_row_goes_back_and_the_life_goes_on(host: HostTables, reclaiming: Eye, grant: Grant) -> None:
    """One row of history, its event with the reason, why it went back; epoch, other rows, registry as they were."""
    await host.worker("w1")
    (leaked, held) = await host.workflows("w1", 2)
    epoch = await grant("w1")
    version = await host.connection.fetchval("SELECT version FROM workflow_execution WHERE id = $1::uuid", leaked)
    reclaiming.beat("w1", [held], epoch)

    done = await reclaiming.until_leaked(("w1", [held]))

    assert (done.leaked, done.items) == (1, 1)
    assert await host.state(leaked) == ("PENDING", None)
    assert await host.state(held) == ("RUNNING", "w1")
    assert await host.worker_status("w1") == ["ONLINE"]
    after = await host.connection.fetchval("SELECT version FROM workflow_execution WHERE id = $1::uuid", leaked)
    assert after == version + 1
    (event,) = await reclaiming.store.outbox.pending(0, 10)
    data = msgspec.json.decode(event.data, type=WorkflowReclaimed)
    assert (event.type, event.subject) == ("workflow.reclaimed", leaked)
    assert (data.reason, data.epoch, data.incarnation, data.lapsed_at) == ("leaked", epoch, "a", None)
    assert (data.former_worker, data.reclaim_count, data.kind) == ("w1", 1, "invoice")
    history = await host.connection.fetch("SELECT id, worker, epoch, reclaimed_at FROM liveness.reclaim")
    assert [(row["id"], row["worker"], row["epoch"]) for row in history] == [(leaked, "w1", epoch)]
    why = await host.connection.fetchrow("SELECT *, evidence ->> 'why' AS why FROM liveness.leak")
    assert why is not None
    assert (why["reclaimed"], why["found_at"]) == (True, history[0]["reclaimed_at"])
    assert reclaiming.store.leaks.items == {"workflow": 1}
    assert why["why"].startswith("RUNNING in the name of a worker that lives and left it out for 6")
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.epoch WHERE ended_at IS NULL") == 1
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.expiration") == 0
    assert (await reclaiming.until_leaked(("w1", [held]))).leaked == 0


async def test_in_mode_observe_nothing_is_put_back(host: HostTables, eyes: Callable[..., Any]) -> None:
    """Though it was asked for; it is told as observed."""
    eye = await eyes(mode="observe", leak_action="reclaim")
    (leaked,) = await host.workflows("w1")
    eye.beat("w1", [], (await eye.store.epochs.grant([Life("w1", None, "a", 60.0)])).epochs["w1"])

    done = await eye.until_leaked(("w1", []))

    assert (done.told, done.items) == (1, 0)
    assert await host.state(leaked) == ("RUNNING", "w1")
    rows = await host.connection.fetch("SELECT type, observed FROM liveness.outbox")
    assert [tuple(row) for row in rows] == [("worker.leaked", True)]


async def test_ids_are_the_same_however_they_are_spelled(host: HostTables, reclaiming: Eye, grant: Grant) -> None:
    """Upper case, braces, no hyphens, a URN, a space, and what cannot be an id beside them."""
    ids = await host.workflows("w1", 6)
    spelled = [ids[0], ids[1].upper(), "{" + ids[2] + "}", ids[3].replace("-", "")]
    spelled += [f"urn:uuid:{ids[4]}", f" {ids[5]}\n", "\0", "", "İ"]
    reclaiming.beat("w1", spelled, await grant("w1"))

    assert await reclaiming.store.leaks.unreported({"w1": spelled}) == []
    assert (await reclaiming.until_leaked(("w1", spelled))).leaked == 0


async def test_ids_that_the_column_fills_up_are_listed_as_a_worker_reads_them(
    host: HostTables, eyes: Callable[..., Any]
) -> None:
    """A `char(n)` is read with its spaces, and has none where it is made a text."""
    await host.connection.execute(
        "CREATE TABLE jobs (id character(10) PRIMARY KEY, status text NOT NULL, owner text);"
        " INSERT INTO jobs VALUES ('j-1', 'taken', 'w1'), ('j-2', 'taken', 'w1')"
    )
    work = {"name": "job", "table": "jobs", "owner": "owner", "running": "taken", "waiting": "open"}
    eye = await eyes(work=[work], leak_action="reclaim")
    held = await host.connection.fetchval("SELECT id FROM jobs ORDER BY id LIMIT 1")
    assert held == "j-1" + 7 * " "
    eye.beat("w1", [held], (await eye.store.epochs.grant([Life("w1", None, "a", 10.0)])).epochs["w1"])

    assert (await eye.until_leaked(("w1", [held]))).items == 1
    assert [row["owner"] for row in await host.connection.fetch("SELECT owner FROM jobs ORDER BY id")] == ["w1", None]


@pytest.mark.parametrize(
    ("kind", "stored", "listed", "leaks"),
    [
        ("numeric(6,2)", "1.20", "1.2", 0),
        ("timestamptz", "2025-11-27 03:12:04+00", "2025-11-27T03:12:04+00:00", 0),
        ("numeric(6,2)", "1.20", "other", 0),
        ("bigint", "7", "8", 1),
        ("varchar(9)", "j-1", "j-2", 1),
    ],
)
async def test_ids_that_can_be_written_in_several_ways_are_never_missing(
    host: HostTables, eyes: Callable[..., Any], kind: str, stored: str, listed: str, leaks: int
) -> None:
    """Nobody can say of them what a list leaves out."""
    await host.connection.execute(
        f"CREATE TABLE jobs (id {kind} PRIMARY KEY, status text NOT NULL, owner text);"  # noqa: S608 - of the test's own literals
        f"INSERT INTO jobs VALUES ('{stored}', 'taken', 'w1')"
    )
    work = {"name": "job", "table": "jobs", "owner": "owner", "running": "taken", "waiting": "open"}
    eye = await eyes(work=[work], leak_action="reclaim")
    eye.beat("w1", [listed], (await eye.store.epochs.grant([Life("w1", None, "a", 10.0)])).epochs["w1"])

    assert (await eye.until_leaked(("w1", [listed]))).items == leaks


async def test_a_row_that_is_claimed_between_the_two_beats_is_no_leak(
    host: HostTables, reclaiming: Eye, grant: Grant
) -> None:
    """The worker's list of before the claim says nothing of it, however long ago its beats were."""
    reclaiming.beat("w1", [], await grant("w1"))
    for _ in range(3):
        await reclaiming.look(("w1", []), after=GRACE)
    (fresh,) = await host.workflows("w1")

    assert (await reclaiming.look()).leaked == 0
    assert (await reclaiming.look(("w1", [fresh]), after=GRACE + 1.0)).leaked == 0
    assert await host.state(fresh) == ("RUNNING", "w1")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE workflow_execution SET updated_at = now() WHERE id = $1::uuid",
        "UPDATE workflow_execution SET status = 'COMPLETED' WHERE id = $1::uuid",
        "UPDATE workflow_execution SET worker_id = 'w2' WHERE id = $1::uuid",
    ],
)
async def test_a_row_that_is_touched_between_the_look_and_the_reclaim_stays(
    host: HostTables, reclaiming: Eye, grant: Grant, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """Touched with nothing, finished, or claimed by another: the statement that takes looks again."""
    (leaked,) = await host.workflows("w1")
    reclaiming.beat("w1", [], await grant("w1"))
    reclaim = reclaiming.store.leaks.reclaim

    async def touched_first(leaks: Any) -> int:
        await host.connection.execute(statement, leaked)
        return await reclaim(leaks)

    monkeypatch.setattr(reclaiming.store.leaks, "reclaim", touched_first)
    done = await reclaiming.until_leaked(("w1", []))

    assert (done.leaked, done.items) == (1, 0)
    assert (await host.state(leaked))[0] != "PENDING"
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.leak") == 0


async def test_a_row_that_somebody_holds_stays_for_a_later_look(
    host: HostTables, dsn: str, reclaiming: Eye, grant: Grant
) -> None:
    """Nobody waits for it, and what else has leaked goes back."""
    held, free = await host.workflows("w1", 2)
    reclaiming.beat("w1", [], await grant("w1"))
    other = await asyncpg.connect(dsn)
    async with other.transaction():
        await other.execute("SELECT FROM workflow_execution WHERE id = $1::uuid FOR UPDATE", held)
        done = await reclaiming.until_leaked(("w1", []))
    await other.close()

    assert (done.leaked, done.items) == (2, 1)
    assert (await host.state(held), await host.state(free)) == (("RUNNING", "w1"), ("PENDING", None))


async def test_a_life_that_ends_meanwhile_takes_its_rows_itself(
    host: HostTables, stores: Callable[..., Any], reclaiming: Eye, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it held goes back once, with the reason of its end, be it a little later."""
    small = await stores(reclaim_chunk=1)
    await host.workflows("w1", 2)
    epoch = await grant("w1")
    reclaiming.beat("w1", [], epoch)
    reclaim = reclaiming.store.leaks.reclaim

    async def ended_first(leaks: Any) -> int:
        await small.reclaims.settle([case("w1", epoch)])
        return await reclaim(leaks)

    monkeypatch.setattr(reclaiming.store.leaks, "reclaim", ended_first)
    done = await reclaiming.until_leaked(("w1", []))

    assert (done.leaked, done.items, await host.count("RUNNING")) == (2, 0, 1)
    await finish_chunk(small, Progress())
    assert {data["reason"] for kind, data in await told(host) if kind == "workflow.reclaimed"} == {"lapsed"}
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.reclaim") == 2


async def test_what_a_former_life_has_left_is_no_leak(
    host: HostTables, stores: Callable[..., Any], eyes: Callable[..., Any]
) -> None:
    """A reclaim that is not finished puts it back."""
    eye = await eyes(leak_action="reclaim")
    small = await stores(reclaim_chunk=1)
    former = (await small.epochs.grant([Life("w1", None, "x", 10.0)])).epochs["w1"]
    await host.workflows("w1", 3)
    await small.reclaims.settle([case("w1", former)])
    assert await host.count("RUNNING") == 2
    eye.beat("w1", [], (await small.epochs.grant([Life("w1", None, "a", 10.0)])).epochs["w1"])

    assert (await eye.until_leaked(("w1", []))).leaked == 0
    await finish_chunk(small, Progress())
    await finish_chunk(small, Progress())
    assert await host.count("PENDING") == 3


async def test_another_leader_and_this_one_put_a_row_back_once(
    host: HostTables, eyes: Callable[..., Any], grant: Grant
) -> None:
    """Two that believe they lead, with the same belief; and one that does not lead does not even ask."""
    (leaked,) = await host.workflows("w1")
    epoch = await grant("w1")
    first, second, third = [await eyes(leak_action="reclaim") for _ in range(3)]
    third.leads = False
    for eye in (first, second, third):
        eye.beat("w1", [], epoch)
        for _ in range(2):
            await eye.look(("w1", []))
    items = [(await eye.look(("w1", []), after=GRACE + 1.0)).items for eye in (first, second, third)]

    assert items == [1, 0, 0]
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.reclaim WHERE id = $1", leaked) == 1
    assert [kind for kind, _ in await told(host)] == ["workflow.reclaimed"]


async def test_who_does_not_lead_any_more_takes_nothing(host: HostTables, reclaiming: Eye, grant: Grant) -> None:
    """Its term is over, and it does not know."""
    (leaked,) = await host.workflows("w1")
    reclaiming.beat("w1", [], await grant("w1"))
    for _ in range(2):
        await reclaiming.look(("w1", []))
    await host.connection.execute("UPDATE liveness.leader SET term = term + 1")

    with pytest.raises(NotLeaderError):
        await reclaiming.look(("w1", []), after=GRACE + 1.0)
    assert await host.state(leaked) == ("RUNNING", "w1")


async def test_while_nothing_can_be_heard_nothing_leaks(host: HostTables, reclaiming: Eye, grant: Grant) -> None:
    """A beat that lists the row may lie unread."""
    (leaked,) = await host.workflows("w1")
    reclaiming.beat("w1", [], await grant("w1"))
    for _ in range(2):
        await reclaiming.look(("w1", []))
    reclaiming.wait(GRACE + 1.0)
    reclaiming.beat("w1", [])
    reclaiming.time += 0.75
    assert (await reclaiming.comparing.run_once()).leaked == 0

    assert (await reclaiming.look()).leaked == 1
    assert await host.state(leaked) == ("PENDING", None)


async def test_a_leak_that_was_told_of_goes_back_once_the_setting_says_so(
    host: HostTables, eyes: Callable[..., Any], grant: Grant
) -> None:
    """And what is kept of it says that it did."""
    (leaked,) = await host.workflows("w1")
    epoch = await grant("w1")
    for action in ("report", "reclaim"):
        eye = await eyes(leak_action=action)
        eye.beat("w1", [], epoch)
        assert (await eye.until_leaked(("w1", []))).leaked == 1

    assert await host.state(leaked) == ("PENDING", None)
    assert [row["reclaimed"] for row in await host.connection.fetch("SELECT reclaimed FROM liveness.leak")] == [True]
    assert [kind for kind, _ in await told(host)] == ["worker.leaked", "workflow.reclaimed"]


async def test_many_leaks_go_back_in_a_few_statements(
    host: HostTables, reclaiming: Eye, grant: Grant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One look for each table however many workers and rows, none where nobody lists anything, and one transaction."""
    asked: list[str] = []
    fetch = reclaiming.store.database.fetch

    async def counted(statement: str, *parameters: Any, **how: Any) -> Any:
        asked.append(statement)
        return await fetch(statement, *parameters, **how)

    monkeypatch.setattr(reclaiming.store.database, "fetch", counted)
    names = [f"w{number}" for number in range(20)]
    for name in names:
        await host.workflows(name, 100)
        reclaiming.beat(name, None, await grant(name))
    assert await reclaiming.comparing.run_once() == Compared()
    assert asked == []

    done = await reclaiming.until_leaked(*((name, []) for name in names))

    assert (done.leaked, done.items) == (2_000, 2_000)
    assert len(asked) == 3 * 2
    assert await host.count("PENDING") == 2_000


async def test_from_a_heartbeat_that_leaves_a_row_out_to_the_event(
    host: HostTables, serve: Serve, client: Client, news: News
) -> None:
    """By the whole service; whoever lists nothing at all keeps everything."""
    (leaked,) = await host.workflows("w1")
    (kept,) = await host.workflows("w2")
    service = await serve(leak_grace=0.5, leak_action="reclaim")
    assert service.parts is not None
    looks = service.parts.comparing.run_once
    done = 0
    while not done:
        await beat(client, "w1", running=[], ttl=60, incarnation="a", uptime=1_000.0)
        await beat(client, "w2", ttl=60)
        await look_again()
        done = (await looks()).items
        done = done or await host.count("PENDING")

    event = await news.until("workflow.reclaimed")

    assert isinstance(event.data, WorkflowReclaimed)
    assert (event.subject, event.data.reason, event.data.former_worker) == (leaked, "leaked", "w1")
    assert await host.state(kept) == ("RUNNING", "w2")
    status = await ask(client, "status")
    assert {worker["worker"]: worker["state"] for worker in status["workers"]} == {"w1": "live", "w2": "live"}


async def test_while_it_is_paused_nothing_is_put_back(host: HostTables, reclaiming: Eye, grant: Grant) -> None:
    """What leaked is told of meanwhile, and goes back behind the pause."""
    reclaiming.comparing.paused = lambda: True
    (row,) = await host.workflows("w1")
    reclaiming.beat("w1", [], await grant("w1"))

    done = await reclaiming.until_leaked(("w1", []))
    assert (done.told, done.items, await host.state(row)) == (1, 0, ("RUNNING", "w1"))
    reclaiming.comparing.paused = lambda: False

    assert (await reclaiming.until_leaked(("w1", []))).items == 1
