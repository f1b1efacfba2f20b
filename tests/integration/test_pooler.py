"""Everything that Postgres is asked for, by way of a real pgbouncer in transaction mode."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from liveness.embedded import PostgresServer
from liveness.errors import DatabaseAwayError, NotLeaderError
from liveness.settings import Settings
from liveness.store import Database, Life, Progress, Store, migrate
from liveness.verdicts import Outcome
from tests.conftest import SOON, HostTables
from tests.integration.conftest import case, finish_chunk
from tests.pgbouncer import SERVER_CONNECTIONS, PgBouncer, find_pgbouncer

HOUR = 3600.0
SETTINGS = (
    "SELECT pg_backend_pid() AS pid, current_setting('lock_timeout') AS lock_timeout,"
    " current_setting('idle_in_transaction_session_timeout') AS idle, current_setting('timezone') AS timezone"
)
Pooled = Callable[..., Any]


@pytest.fixture
async def pooled(pgbouncer: PgBouncer, dsn: str, settings: Callable[..., Settings]) -> AsyncIterator[Pooled]:
    """Open stores on the fresh database by way of pgbouncer; none leads."""
    databases = []

    async def open_store(**overrides: Any) -> Store:
        made = settings(postgres_dsn=pgbouncer.dsn(dsn.rpartition("/")[2]), **overrides)
        databases.append(Database(made.postgres_dsn, SOON))
        await databases[-1].connect()
        return await Store.open(databases[-1], made)

    yield open_store
    for database in databases:
        database.terminate()


async def _renewed(store: Store) -> bool:
    assert store.leader.term is not None
    try:
        return await store.leader.renew()
    except DatabaseAwayError:
        return False


async def test_a_whole_life_passes_through_a_pooler(host: HostTables, pooled: Pooled) -> None:
    """Grant, update, lapse in chunks, finish, recovery, set back, news and their end."""
    store: Store = await pooled(reclaim_chunk=2)
    assert await store.leader.take(HOUR)
    await host.worker("w1")
    await host.workflows("w1", 7)
    await host.tasks("w1", 3)

    epoch = (await store.epochs.grant([Life("w1", None, "a", 10.0)])).epochs["w1"]
    await store.epochs.update([Life("w1", epoch, "a", 20.0)])
    verdicts = await store.reclaims.settle([case("w1", epoch)])
    assert await store.reclaims.owing(["w1"]) == {"w1"}
    while await store.reclaims.unfinished():
        await finish_chunk(store, progress := Progress())
        assert progress.looked_at
    again = (await store.epochs.grant([Life("w1", None, "b", 10.0)])).epochs["w1"]
    await store.epochs.recover({"w1": again})
    await store.epochs.set_back()
    await store.outbox.add("liveness.storm", "liveness.storm", {"held": 3})
    pending = await store.outbox.pending(0, 100)
    await store.outbox.clear([event.seq for event in pending])

    assert verdicts[0].outcome is Outcome.ENDED
    assert await host.count("PENDING") == 7
    assert await host.worker_status("w1") == ["ONLINE"]
    assert len(pending) == 1 + 7 + 3 + 1 + 1
    assert await store.outbox.depth() == (0, 0.0)
    assert await store.epochs.open_lives(None) == [Life("w1", again, "b", 10.0)]


async def test_leaders_succeed_each_other_through_a_pooler(pooled: Pooled) -> None:
    """Renewal, takeover, a stale leader's failure and release, on connections that everybody shares."""
    first, second = await pooled(), await pooled()

    assert await first.leader.take(HOUR)
    assert not await second.leader.take(HOUR)
    async with first.leader.transaction():
        assert await first.leader.renew()
    assert await second.leader.take(0.0)
    with pytest.raises(NotLeaderError):
        await first.epochs.grant([Life("w1", None, None, 10.0)])
    await second.leader.release()
    assert await first.leader.take(HOUR)
    assert first.leader.term == 3


async def test_a_paused_leader_is_succeeded_through_a_pooler(host: HostTables, pooled: Pooled) -> None:
    """Its session is ended although the pooler is not paused, and what it did is undone."""
    first, second = await pooled(), await pooled()
    await first.leader.take(HOUR)

    async def paused() -> None:
        async with first.leader.transaction() as connection:
            await connection.execute("INSERT INTO worker (worker_name) VALUES ('undone')")
            assert await second.leader.take(0.0)

    with pytest.raises(DatabaseAwayError):
        await asyncio.wait_for(paused(), SOON)

    assert await host.worker_status("undone") == []


async def test_a_hundred_transactions_at_once_take_turns(host: HostTables, pooled: Pooled) -> None:
    """Far more than pgbouncer has connections; each acts once, under its own settings, beside renewals."""
    stores = [await pooled() for _ in range(10)]
    assert await stores[0].leader.take(HOUR)
    for store in stores:
        store.leader.term = stores[0].leader.term

    async with asyncio.timeout(SOON):
        granted, renewed = await asyncio.gather(
            asyncio.gather(
                *(stores[at % 10].epochs.grant([Life(f"w{at}", None, None, 10.0)]) for at in range(100)),
            ),
            asyncio.gather(*(store.leader.renew() for store in stores)),
        )
        backends = await asyncio.gather(*(store.database.fetch(SETTINGS) for store in stores for _ in range(10)))

    assert [list(one.epochs) for one in granted] == [[f"w{at}"] for at in range(100)]
    assert renewed == [True] * 10
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.epoch WHERE term = 1") == 100
    assert {tuple(rows[0])[1:] for rows in backends} == {("20s", "1s", "UTC")}
    assert len({rows[0]["pid"] for rows in backends}) <= SERVER_CONNECTIONS


async def test_settings_end_with_the_transaction(pgbouncer: PgBouncer, pooled: Pooled, dsn: str) -> None:
    """Who gets the connection next finds nothing of ours."""
    store: Store = await pooled()
    await store.database.fetch(SETTINGS)
    other = Database(pgbouncer.dsn(dsn.rpartition("/")[2]))
    await other.connect()

    async with other._pool.acquire() as connection:
        rows = await connection.fetch(SETTINGS)

    assert (rows[0]["lock_timeout"], rows[0]["idle"]) == ("0", "0")
    other.terminate()


async def test_an_outage_behind_a_pooler_ends_when_postgres_is_back(tmp_path: Any, settings: Any) -> None:
    """The term outlives it, and nothing has to be begun anew."""
    program = find_pgbouncer()
    if program is None:
        pytest.skip("no pgbouncer on the PATH nor in /usr/sbin: install Debian's package pgbouncer")
    postgres = PostgresServer(tmp_path / "postgres", durable=True)
    await postgres.start()
    pgbouncer = PgBouncer(tmp_path / "pgbouncer", program, postgres.port)
    await pgbouncer.start()
    database = Database(pgbouncer.dsn("postgres"))
    try:
        await database.connect()
        await migrate(database, "public", host_tables=True)
        store = await Store.open(database, settings())
        assert await store.leader.take(HOUR)
        postgres.kill()
        with pytest.raises(DatabaseAwayError):
            await store.leader.renew()
        waiting = asyncio.create_task(database.connect())
        await postgres.start()
        async with asyncio.timeout(SOON):
            await waiting
            while not await _renewed(store):
                pass
        assert (await store.epochs.grant([Life("w1", None, None, 10.0)])).epochs["w1"]
        assert store.leader.term == 1
    finally:
        database.terminate()
        await pgbouncer.stop()
        await postgres.stop()
