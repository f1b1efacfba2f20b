"""What is old goes, a little at a time; what is owed to anybody stays; and nobody is told that it never was."""

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from liveness.errors import DatabaseRefusedError
from liveness.explanations import told
from liveness.forgetting import NEXT_SECONDS, PASS_SECONDS, Forgetting
from liveness.store import Database, Life, Store, migrate, migrations
from liveness.store.migrations import known_migrations
from tests.conftest import HostTables
from tests.integration.test_tables import NUMBERED, NUMBERED_SETTINGS

DAY = 86_400.0
LIFE = """
    WITH life AS (
        INSERT INTO liveness.epoch (worker, epoch, ttl, term, granted_at, ended_at)
        VALUES ($1, (extract(epoch FROM now() - make_interval(secs => $2)) * 1000)::bigint + $3, 10, 1,
            now() - make_interval(secs => $2), now() - make_interval(secs => $2))
        RETURNING worker, epoch
    )
    INSERT INTO liveness.expiration (worker, epoch, reason, ttl, decided_by, evidence, expired_at, finished_at)
    SELECT worker, epoch, 'lapsed', 10, 'a test', '{}', now() - make_interval(secs => $2),
        now() - make_interval(secs => $2)
    FROM life
    RETURNING epoch
"""
MOVE = """
    INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count, reclaimed_at)
    VALUES ('workflow', $1, $2, $3, 1, now() - make_interval(secs => $4))
"""
LEAK = """
    INSERT INTO liveness.leak (work, id, worker, epoch, mark, reclaimed, decided_by, evidence, found_at)
    VALUES ('workflow', $1, 'w1', 1, '1', false, 'a test', '{}', now() - make_interval(secs => $2))
"""


class Past:
    """Writes what was, so many seconds ago, and says what is left of it."""

    def __init__(self, host: HostTables, store: Store) -> None:
        self.connection = host.connection
        self.waits, self.now = "", 0.0
        self.forgetting = Forgetting(store=store, waits=lambda: self.waits, clock=lambda: self.now)

    async def life(self, worker: str, ago: float, number: int = 0) -> int:
        """Write a life that ended, with a number that is so much greater than usual."""
        return int(await self.connection.fetchval(LIFE, worker, ago, number))

    async def move(self, work_id: str, ago: float, worker: str = "w1", epoch: int = 1) -> None:
        """Write that a piece of work went back."""
        await self.connection.execute(MOVE, work_id, worker, epoch, ago)

    async def leak(self, work_id: str, ago: float) -> None:
        """Write that a row leaked."""
        await self.connection.execute(LEAK, work_id, ago)

    async def lives(self) -> list[str]:
        """Return whose lives there are, by epochs and by expirations."""
        epochs = await self.connection.fetch("SELECT worker, epoch FROM liveness.epoch WHERE ended_at IS NOT NULL")
        ends = await self.connection.fetch("SELECT worker, epoch FROM liveness.expiration ORDER BY worker")
        assert sorted(map(tuple, epochs)) == sorted(map(tuple, ends))
        return [row["worker"] for row in ends]

    async def ids(self, table: str) -> list[str]:
        """Return of which pieces of work a table has rows."""
        rows = await self.connection.fetch(f"SELECT id FROM liveness.{table} ORDER BY id")  # noqa: S608 - of this file
        return [row["id"] for row in rows]

    async def whole(self) -> list[int]:
        """Go on to the end of a pass; return what each batch has forgotten."""
        gone: list[int] = []
        while not gone or self.forgetting.interval != PASS_SECONDS:
            gone.append(await self.forgetting.run_once())
        return gone


@pytest.fixture
def past(host: HostTables, store: Store) -> Past:
    """A past that is kept for 90 days."""
    return Past(host, store)


async def test_what_is_old_goes_and_what_is_not_stays(past: Past) -> None:
    """The history, what leaked, and lives with their epochs; it is logged how much."""
    for name, ago in (("old", 91 * DAY), ("young", 89 * DAY)):
        await past.move(name, ago)
        await past.leak(name, ago)
        await past.life(name, ago)

    with capture_logs() as logs:
        await past.whole()

    assert (await past.ids("reclaim"), await past.ids("leak"), await past.lives()) == (["young"], ["young"], ["young"])
    (line,) = [line for line in logs if line["event"] == "forgotten"]
    assert (line["reclaims"], line["leaks"], line["lives"]) == (1, 1, 1)
    assert await past.whole() == [0]


async def test_for_ever_is_for_ever(stores: Callable[..., Any]) -> None:
    """With 0, nobody forgets: nothing would be too young."""
    store = await stores(retention=0.0)

    assert store.aged._retention == 0.0


OWED = {
    "a reclaim that is not finished": "UPDATE liveness.expiration SET finished_at = NULL",
    "one that was finished lately": "UPDATE liveness.expiration SET finished_at = now()",
    "a row of the name that its table refuses": (
        "INSERT INTO liveness.remainder (worker, epoch, work, id, mark, refused)"
        " VALUES ('w1', 7, 'workflow', 'a', '1', 'no')"
    ),
    "a registry row that is OFFLINE, and was set so": (
        "UPDATE liveness.expiration SET offlined = jsonb_build_object((SELECT id FROM worker), 'ONLINE')"
    ),
    "a life that goes on": "DELETE FROM liveness.expiration; UPDATE liveness.epoch SET ended_at = NULL",
}
PAID = (
    "UPDATE liveness.expiration SET finished_at = expired_at; DELETE FROM liveness.remainder;"
    " UPDATE worker SET status = 'ONLINE'"
)


@pytest.mark.parametrize("what", OWED)
async def test_what_is_owed_stays(host: HostTables, past: Past, what: str) -> None:
    """However old it is; when it is owed no more, it goes."""
    await host.worker("w1", status="OFFLINE")
    await past.life("w1", 400 * DAY)
    await host.connection.execute(OWED[what])
    look = "SELECT count(*) FROM liveness.epoch"

    await past.whole()
    assert await host.connection.fetchval(look) == 1
    await host.connection.execute(PAID)
    await past.whole()
    assert await host.connection.fetchval(look) == ("goes on" in what)


async def test_a_number_that_is_not_past_yet_is_not_forgotten(past: Past, store: Store) -> None:
    """A clock was ahead when it was issued: the next one has to be greater. Others are, being of the time."""
    ahead = await past.life("ahead", 91 * DAY, number=int(92 * DAY * 1000))
    usual = await past.life("usual", 91 * DAY)

    await past.whole()

    assert await past.lives() == ["ahead"]
    granted = await store.epochs.grant([Life(name, None, None, 10.0) for name in ("ahead", "usual")])
    assert granted.epochs["ahead"] > ahead
    assert granted.epochs["usual"] > usual


async def test_a_registry_row_that_is_gone_is_owed_nothing(host: HostTables, past: Past) -> None:
    """The host has deleted it: pods with names of their own come and go. Another one of the name is nobody's doing."""
    await host.worker("w1", status="OFFLINE")
    await past.life("w1", 91 * DAY)
    await host.connection.execute('UPDATE liveness.expiration SET offlined = \'{"7": "ONLINE"}\'')

    await past.whole()

    assert await past.lives() == []


async def test_where_no_status_says_that_a_name_is_not_up_its_last_end_stays(
    host: HostTables, stores: Callable[..., Any]
) -> None:
    """Or the sweep would find the long dead again every 90 days; until the row goes, or somebody has beaten in it."""
    await host.connection.execute(NUMBERED)
    await host.connection.execute("INSERT INTO workers (last_heartbeat) VALUES (now() - interval '1 year'), (now())")
    store = await stores(**NUMBERED_SETTINGS)
    past = Past(host, store)
    for worker, days in (("1", 120), ("1", 100), ("2", 100), ("3", 100)):
        await past.life(worker, days * DAY)

    await past.whole()

    assert await past.lives() == ["1"]
    assert await store.host.stale(60.0) == []
    await host.connection.execute("DELETE FROM workers WHERE id = 1")
    await past.whole()
    assert await past.lives() == []


async def test_it_goes_in_batches(past: Past, store: Store) -> None:
    """Each of so many rows at most, the next one soon; one that is owed does not keep those behind it."""
    store.aged.batch = 2
    for number in range(5):
        await past.move(str(number), 91 * DAY)
        await past.life(f"w{number}", 91 * DAY - number)
    await past.connection.execute(
        "UPDATE liveness.expiration SET finished_at = now() WHERE worker IN ('w0', 'w1', 'w2')"
    )

    assert await past.forgetting.run_once() == 2
    assert past.forgetting.interval == NEXT_SECONDS
    assert len(await past.ids("reclaim")) == 3
    # The rest of the history, and with it the first lives: those are owed.
    assert await past.whole() == [2, 0, 1, 1]
    assert await past.lives() == ["w0", "w1", "w2"]


async def test_while_there_is_anything_else_to_do_nothing_is_forgotten(past: Past) -> None:
    """It is asked again soon; when that goes on for a day it is told, once a day."""
    await past.move("old", 91 * DAY)
    past.waits = "events"

    with capture_logs() as logs:
        assert await past.forgetting.run_once() == 0
        past.now = DAY - 1
        assert await past.forgetting.run_once() == 0
        assert logs == []
        for past.now in (DAY, DAY + 1):
            assert await past.forgetting.run_once() == 0
    assert [(line["event"], line["waits_for"]) for line in logs] == [("not_forgotten", "events")]
    assert past.forgetting.interval == NEXT_SECONDS
    assert await past.ids("reclaim") == ["old"]


async def test_a_refusal_is_told_and_does_no_harm(past: Past, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The duty does not fail for it, so the service stays ready."""

    async def refuse() -> int:
        raise DatabaseRefusedError("permission denied")

    monkeypatch.setattr(store.aged, "forget_leaks", refuse)
    with capture_logs() as logs:
        assert await past.forgetting.run_once() == 0

    assert [line["event"] for line in logs] == ["forget_refused"]
    assert past.forgetting.interval == PASS_SECONDS


async def test_what_was_forgotten_is_told_of_as_that(host: HostTables, past: Past, store: Store) -> None:
    """Not as what never was."""
    (row,) = await host.workflows("w1")
    before = told(await store.history.of_work(row, 5))
    assert "was never moved: RUNNING, owner w1" in before.sentence
    await past.move(row, 91 * DAY)
    await past.life("w1", 91 * DAY)
    await past.whole()

    piece = told(await store.history.of_work(row, 5))
    assert "was not moved since 20" in piece.sentence
    assert "(90 days ago), and what was before is not kept: RUNNING" in piece.sentence
    for answer in (await store.history.of_work("nothing", 5), await store.history.of_worker("nobody", 5)):
        assert told(answer).sentence.endswith("Z (90 days ago) is not kept.")


async def test_every_table_of_ours_may_be_published(past: Past) -> None:
    """FOR ALL TABLES, and rows go all the same: each has a key."""
    await past.move("old", 91 * DAY)
    await past.leak("old", 91 * DAY)
    await past.life("old", 91 * DAY)
    await past.connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")

    await past.whole()

    assert (await past.ids("reclaim"), await past.ids("leak"), await past.lives()) == ([], [], [])
    without = """
        SELECT c.relname FROM pg_class AS c
        WHERE c.relnamespace = 'liveness'::regnamespace AND c.relkind = 'r'
            AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)
    """
    assert await past.connection.fetch(without) == []


async def test_a_history_from_before_gets_its_numbers(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which it was written; and what is written behind it goes on from there."""
    connection, database = await asyncpg.connect(empty_dsn), Database(empty_dsn)
    of_now = known_migrations()
    monkeypatch.setattr(migrations, "known_migrations", lambda: [one for one in of_now if one.version < 13])
    await migrate(database, "public", host_tables=True)
    for number in range(3):
        await connection.execute(MOVE, str(number), "w1", 1, 0.0)
    monkeypatch.undo()
    await migrate(database, "public")
    await connection.execute(MOVE, "3", "w1", 1, 0.0)

    rows = await connection.fetch("SELECT seq, id FROM liveness.reclaim ORDER BY seq")
    assert [tuple(row) for row in rows] == [(number + 1, str(number)) for number in range(4)]
    await database.close()
    await connection.close()
