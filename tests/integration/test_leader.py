"""The leader: one acts, and what a former one still tries fails on its term."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from liveness.apart import apart
from liveness.errors import DatabaseAwayError, NotLeaderError
from liveness.store import Database, Leader, Life, Progress, Store
from tests.conftest import SOON, HostTables
from tests.integration.conftest import Grant, case

HOUR = 3600.0
# More than any socket holds.
MANY_BYTES = 20_000_000
Leaders = Callable[..., Leader]


@pytest.fixture
async def leaders(dsn: str) -> AsyncIterator[Leaders]:
    """Make the leader's part of replicas, each with connections of its own."""
    opened = []

    def make(holder: str, lock_timeout: float = SOON, *, by: str = dsn) -> Leader:
        opened.append(Database(by, lock_timeout))
        return Leader(opened[-1], holder)

    yield make
    for database in opened:
        database.terminate()


@pytest.fixture
async def plain_dsn(dsn: str, host: HostTables) -> AsyncIterator[str]:
    """The same database, for a role that owns nothing and may lead."""
    await host.connection.execute(
        "CREATE ROLE plain LOGIN; GRANT USAGE ON SCHEMA liveness TO plain;"
        " GRANT SELECT, UPDATE ON liveness.leader TO plain"
    )
    yield "postgresql://plain@" + dsn.partition("@")[2]
    await host.connection.execute("DROP OWNED BY plain; DROP ROLE plain")


async def waits(host: HostTables, statement: str) -> bool:
    """Return whether some session waits for a lock with a statement like this one."""
    return bool(
        await host.connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            " AND query LIKE '%' || $1 || '%'",
            statement,
        )
    )


async def test_of_two_that_take_at_once_one_leads(leaders: Leaders) -> None:
    """Nobody leads a new schema; then one does, and the other sees who."""
    first, second = leaders("a"), leaders("b")
    nobody = await first.seen()

    taken = await asyncio.gather(first.take(HOUR), second.take(HOUR))

    assert (nobody.term, nobody.holder, nobody.age) == (0, None, math.inf)
    assert sorted(taken) == [False, True]
    assert {first.term, second.term} == {1, None}
    seen = await first.seen()
    assert (seen.term, seen.holder) == (1, "a" if taken[0] else "b")
    assert 0 <= seen.age < SOON


async def test_who_leads_and_who_would_sees_its_clock(leaders: Leaders) -> None:
    """With every renewal, and with every try to take the lead; and whoever looks on purpose."""
    first, second = leaders("a"), leaders("b")
    seen: list[tuple[str, float]] = []
    first.on_seen = lambda at: seen.append(("a", at))
    second.on_seen = lambda at: seen.append(("b", at))

    assert await first.take(HOUR)
    assert not await second.take(HOUR)
    assert await first.renew()
    await second.look()

    assert [who for who, _ in seen] == ["a", "b", "a", "b"]
    moments = [at for _, at in seen]
    assert moments == sorted(moments)
    # It is this machine's as well.
    assert moments[-1] == pytest.approx(time.time(), abs=SOON)


async def test_terms_never_repeat(host: HostTables, leaders: Leaders) -> None:
    """Each takeover begins a new one, and the row that counts them can be neither removed nor doubled."""
    first, second = leaders("a"), leaders("b")
    terms = []
    for leader in (first, second, first, first, second):
        assert await leader.take(0.0)
        terms.append(leader.term)

    assert terms == [1, 2, 3, 4, 5]
    for statement in ("DELETE FROM liveness.leader", "TRUNCATE liveness.leader"):
        with pytest.raises(asyncpg.RaiseError, match="has to stay"):
            await host.connection.execute(statement)
    with pytest.raises(asyncpg.UniqueViolationError):
        await host.connection.execute("INSERT INTO liveness.leader VALUES (9, NULL, now())")


async def test_a_leader_is_succeeded_only_when_it_was_not_renewed(host: HostTables, leaders: Leaders) -> None:
    """A renewal keeps the others away; when the last one is older than the timeout, it comes too late."""
    first, second = leaders("a"), leaders("b")
    await first.take(HOUR)
    await host.connection.execute("UPDATE liveness.leader SET renewed_at = now() - interval '2 hours'")

    assert await first.renew()
    assert not await second.take(HOUR)
    await host.connection.execute("UPDATE liveness.leader SET renewed_at = now() - interval '2 hours'")
    assert await second.take(HOUR)

    assert not await first.renew()
    assert (first.term, second.term) == (None, 2)
    assert not await first.renew()


@pytest.mark.parametrize(("ahead", "succeeded"), [(120.0, True), (30.0, False), (-30.0, False), (-120.0, True)])
async def test_a_clock_that_was_set_back_blocks_nobody_for_ever(
    host: HostTables, leaders: Leaders, ahead: float, *, succeeded: bool
) -> None:
    """A renewal that lies in the future is as old as one that lies as far in the past."""
    await leaders("a").take(HOUR)
    await host.connection.execute("UPDATE liveness.leader SET renewed_at = now() + make_interval(secs => $1)", ahead)

    assert await leaders("b").take(60.0) is succeeded


async def test_renewals_and_what_acts_do_not_wait_for_each_other(dsn: str, leaders: Leaders) -> None:
    """A renewal passes beside a transaction that acts, and one that acts beside a renewal that is under way."""
    leader = leaders("a", lock_timeout=0.001)
    await leader.take(HOUR)

    async with leader.transaction():
        assert await leader.renew()
    other = await asyncpg.connect(dsn)
    async with other.transaction():
        await other.execute("UPDATE liveness.leader SET renewed_at = now()")
        async with leader.transaction() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    await other.close()


async def test_a_leader_whose_duties_use_up_the_pool_is_renewed(leaders: Leaders) -> None:
    """Its renewals have a connection of their own."""
    leader = leaders("a")
    await leader.take(HOUR)
    pool = leader._database._pool
    await leader.fetch("SELECT 1")
    used_up = [await pool.acquire() for _ in range(pool.get_max_size())]

    async with asyncio.timeout(SOON):
        assert await leader.renew()

    for connection in used_up:
        await pool.release(connection)


async def test_a_takeover_waits_for_what_is_under_way(host: HostTables, leaders: Leaders) -> None:
    """The next term begins when the transactions that act under the former one have ended."""
    first, second = leaders("a"), leaders("b")
    await first.take(HOUR)

    async with asyncio.timeout(SOON):
        async with first.transaction() as connection:
            taking = asyncio.create_task(second.take(0.0))
            while not await waits(host, "UPDATE liveness.leader"):
                assert not taking.done()
                await connection.execute("SELECT 1")
        assert await taking
    assert second.term == 2


async def test_a_takeover_waits_no_longer_than_it_may_for_a_lock(leaders: Leaders) -> None:
    """Then it was not to be."""
    first, second = leaders("a"), leaders("b", lock_timeout=0.01)
    await first.take(HOUR)

    async with first.transaction():
        assert not await second.take(0.0)
    assert await second.take(0.0)


async def test_a_leader_that_is_paused_in_a_transaction_is_succeeded(host: HostTables, leaders: Leaders) -> None:
    """Postgres ends the session, and what it had done is undone; the paused one learns of it as of an outage."""
    first, second = leaders("a"), leaders("b")
    await first.take(HOUR)

    async def paused() -> None:
        async with first.transaction() as connection:
            await connection.execute("INSERT INTO worker (worker_name) VALUES ('undone')")
            # Nothing is sent on that connection meanwhile: so it is with a process that was stopped.
            while not await second.take(0.0):
                pass

    with pytest.raises(DatabaseAwayError):
        await asyncio.wait_for(paused(), SOON)

    assert await host.worker_status("undone") == []
    with pytest.raises(NotLeaderError):
        async with first.transaction():
            pass


async def test_a_leader_that_is_paused_in_the_middle_of_a_statement_is_succeeded(
    host: HostTables, leaders: Leaders
) -> None:
    """Parsed, and not bound yet: no timeout of Postgres ends that, so its successor does."""
    first, second = leaders("a"), leaders("b", lock_timeout=0.2)
    await first.take(HOUR)

    async def paused() -> None:
        async with first.transaction() as connection:
            await connection.execute("INSERT INTO worker (worker_name) VALUES ('undone')")
            # The driver leaves it so, and sends the rest with the parameters: here, never.
            await connection.prepare("SELECT $1::int")
            while not await second.take(0.0):
                pass

    with pytest.raises(DatabaseAwayError):
        await asyncio.wait_for(paused(), SOON)

    assert second.term == 2
    assert await host.worker_status("undone") == []


async def test_a_leader_that_is_paused_while_it_is_told_much_is_succeeded(leaders: Leaders) -> None:
    """Postgres writes to it for ever, and breaks off neither the statement nor the session by itself."""
    first, second = leaders("a"), leaders("b", lock_timeout=0.2)
    await first.take(HOUR)

    async def paused() -> None:
        async with first.transaction() as connection:
            much = await connection.prepare("SELECT repeat('x', $1)")
            # Nothing is taken off the socket: so it is with a process that was stopped.
            transport: asyncio.Transport = connection._con._transport  # type: ignore[attr-defined]
            transport.pause_reading()
            told = asyncio.create_task(much.fetchval(MANY_BYTES))
            while not await second.take(0.0):
                assert not told.done()
            transport.resume_reading()
            await told

    with pytest.raises(DatabaseAwayError):
        await asyncio.wait_for(paused(), SOON)

    assert second.term == 2


async def test_a_session_of_another_role_is_left_alone_and_said_aloud(leaders: Leaders, plain_dsn: str) -> None:
    """However silent it is, and though this role may end all; nobody leads meanwhile, which has to be known.

    Postgres is there all the while, and is seen.
    """
    leader, seen = leaders("a", lock_timeout=0.3), list[float]()
    leader.on_seen = seen.append
    stranger = await asyncpg.connect(plain_dsn)
    holding = stranger.transaction()
    await holding.start()
    await stranger.execute("SELECT FROM liveness.leader FOR KEY SHARE")
    await stranger.prepare("SELECT $1::int")

    with capture_logs() as logs:
        taken = [await leader.take(0.0) for _ in range(4)]
        unsaid = leader.trouble
        taken += [await leader.take(0.0) for _ in range(2)]

    assert taken == [False] * 6
    assert len(seen) == 6
    assert [line["event"] for line in logs] == ["lead_kept_out"]
    assert unsaid is None
    assert "liveness.leader" in (leader.trouble or "")
    await holding.rollback()
    await stranger.close()
    assert await leader.take(0.0)
    assert leader.trouble is None


async def test_who_may_not_end_sessions_waits_for_the_lead(host: HostTables, leaders: Leaders, plain_dsn: str) -> None:
    """It is no outage, and nothing that a replica could not start for."""
    await host.connection.execute("REVOKE EXECUTE ON FUNCTION pg_terminate_backend FROM PUBLIC")
    first, second = leaders("a"), leaders("b", lock_timeout=0.01, by=plain_dsn)
    await first.take(HOUR)

    async with first.transaction():
        with capture_logs() as logs:
            assert not await second.take(0.0)
    assert [(line["event"], line["log_level"]) for line in logs] == [("sessions_not_ended", "warning")]
    assert await second.take(0.0)


async def test_a_session_that_works_is_not_ended_by_who_wants_the_lead(leaders: Leaders) -> None:
    """However long it takes: only one whose client is silent in it is."""
    first, second = leaders("a"), leaders("b", lock_timeout=0.2)
    await first.take(HOUR)

    async with first.transaction() as connection:
        working = asyncio.create_task(connection.execute("SELECT pg_sleep(1.6)"))
        while not working.done():
            assert not await second.take(0.0)
        await working
    assert await second.take(0.0)


async def test_what_a_takeover_is_waited_for_by_fails_on_its_term(dsn: str, host: HostTables, leaders: Leaders) -> None:
    """A transaction that meets a takeover under way finds its term over when that is committed."""
    leader = leaders("a")
    await leader.take(HOUR)
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("UPDATE liveness.leader SET term = term + 1")

    acting = asyncio.create_task(leader.fetch("SELECT 1"))
    async with asyncio.timeout(SOON):
        while not await waits(host, "FOR KEY SHARE"):
            assert not acting.done()
    await transaction.commit()
    await other.close()

    with pytest.raises(NotLeaderError, match="term 1 is over"):
        await acting


async def test_a_leader_that_leaves_is_succeeded_at_once(leaders: Leaders) -> None:
    """It acts no more; and one that was succeeded releases nothing."""
    first, second, third = leaders("a"), leaders("b"), leaders("c")
    await first.take(HOUR)
    stale = leaders("a")
    stale.term = first.term

    await first.release()

    assert first.term is None
    assert await second.take(HOUR)
    await stale.release()
    assert not await third.take(HOUR)
    with pytest.raises(NotLeaderError):
        await first.fetch("SELECT 1")
    assert not await first.renew()


async def test_the_term_of_a_restored_backup_is_nobodys_from_before(host: HostTables, leaders: Leaders) -> None:
    """A leader from before does not act under the same number that another one was given after the restore."""
    before, after = leaders("a"), leaders("b")
    await before.take(HOUR)
    await host.connection.execute("UPDATE liveness.leader SET term = 0, holder = NULL, renewed_at = '-infinity'")
    await after.take(HOUR)

    with pytest.raises(NotLeaderError):
        await before.fetch("SELECT 1")
    assert after.term == 1
    assert await after.renew()


async def test_a_read_only_database_is_waited_for(dsn: str, host: HostTables, leaders: Leaders) -> None:
    """To act, to renew and to take fail as in an outage, and cost nobody the term; then all goes on."""
    name = dsn.rpartition("/")[2]
    await host.connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    writable = await asyncpg.connect(dsn, server_settings={"default_transaction_read_only": "off"})
    await writable.execute("UPDATE liveness.leader SET term = 7, holder = 'a', renewed_at = now()")
    leader, follower = leaders("a"), leaders("b")
    leader.term = 7

    for attempt in (leader.fetch("SELECT 1"), leader.renew(), follower.take(0.0), leader.fetch("SELECT 1")):
        with pytest.raises(DatabaseAwayError, match="read-only"):
            await attempt
    assert (await leader.seen()).term == leader.term == 7
    await writable.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await writable.close()

    # The first ones may still meet a connection from before, which does not come back.
    for _ in range(2):
        try:
            await leader.renew()
        except DatabaseAwayError:
            continue
    assert await leader.renew()
    assert [row[0] for row in await leader.fetch("SELECT 1")] == [1]


Act = Callable[[Store, int], Awaitable[Any]]
ACTS: dict[str, Act] = {
    "settle": lambda store, epoch: store.reclaims.settle([case("w1", epoch)]),
    "finish": lambda store, _: store.reclaims.finish(Progress(), ["back", "lapsed"]),
    "grant": lambda store, _: store.epochs.grant([Life("new", None, None, 10.0)]),
    "update": lambda store, epoch: store.epochs.update([Life("w1", epoch, "b", 99.0)]),
    "recover": lambda store, _: store.epochs.recover({"lapsed": 2**62}),
    "set_back": lambda store, _: store.epochs._set_back(["back"]),
    "register": lambda store, _: store.host.register(["new"]),
    "checkpoint": lambda store, _: store.host.checkpoint({"w1": 0.0}),
    "clear": lambda store, _: store.outbox.clear(range(100)),
    "add": lambda store, _: store.outbox.add("liveness.storm", "storm", {}),
}
TABLES = ("worker", "workflow_execution", "liveness.epoch", "liveness.expiration", "liveness.remainder",
          "liveness.reclaim", "liveness.outbox")  # fmt: skip


@pytest.mark.parametrize("act", ACTS)
async def test_what_a_stale_leader_still_tries_changes_nothing(
    host: HostTables, stores: Callable[..., Any], grant: Grant, leaders: Leaders, act: str
) -> None:
    """Everything that writes fails on its term; the same would have changed something a moment before."""
    store: Store = await stores(reclaim_chunk=1)
    for name in ("w1", "lapsed", "back"):
        await host.worker(name, silent_for=100.0)
        await host.workflows(name, 3)
    await store.reclaims.settle([case("back", await grant("back")), case("lapsed", await grant("lapsed"))])
    await store.epochs.recover({"back": await grant("back")})
    epoch = await grant("w1")

    async def contents() -> list[Any]:
        statements = [f"SELECT t.*, t.xmin FROM {table} AS t ORDER BY t::text" for table in TABLES]  # noqa: S608
        return [await host.connection.fetch(statement) for statement in statements]

    before = await contents()
    term = store.leader.term
    assert await leaders("another").take(0.0)

    with pytest.raises(NotLeaderError):
        await ACTS[act](store, epoch)

    assert await contents() == before
    assert store.leader.term is None
    await host.connection.execute("UPDATE liveness.leader SET term = $1, holder = $2", term, store.leader.holder)
    store.leader.term = term
    await ACTS[act](store, epoch)
    assert await contents() != before


async def test_an_epoch_says_under_which_term_it_was_granted(
    host: HostTables, store: Store, grant: Grant, leaders: Leaders
) -> None:
    """Those that are granted, and those that the sweep opens to end them."""
    await leaders("another").take(0.0)
    assert await store.leader.take(0.0)

    await grant("w1")
    await store.reclaims.settle([case("unheard", None)])

    rows = await host.connection.fetch("SELECT worker, term FROM liveness.epoch ORDER BY worker")
    assert [(row["worker"], row["term"]) for row in rows] == [("unheard", 3), ("w1", 3)]


async def test_who_does_not_lead_reads(stores: Callable[..., Any], grant: Grant) -> None:
    """A follower asks what it likes, and changes nothing."""
    epoch = await grant("w1", incarnation="a")
    follower: Store = await stores(leads=False)

    assert await follower.epochs.open_lives(None) == [Life("w1", epoch, "a", 10.0)]
    assert await follower.outbox.depth() == (0, 0.0)
    with pytest.raises(NotLeaderError, match="does not act"):
        await follower.epochs.grant([Life("w2", None, None, 10.0)])
    # By what it says, hellos are answered.
    with pytest.raises(NotLeaderError, match="does not act"):
        await follower.reclaims.owing(["w1"])


async def test_a_poisoned_row_is_told_apart_and_a_lost_term_blames_nobody(
    host: HostTables, store: Store, grant: Grant, leaders: Leaders
) -> None:
    """What Postgres refuses of one worker holds up no other; that the term is over is nobody's poison."""
    await host.connection.execute(
        "ALTER TABLE workflow_execution ADD CHECK (kind <> 'poison' OR worker_id IS NOT NULL)"
    )
    cases = [case(f"w{number}", await grant(f"w{number}")) for number in range(9)]
    for each in cases:
        await host.workflows(each.worker)
    await host.connection.execute("UPDATE workflow_execution SET kind = 'poison' WHERE worker_id = 'w4'")

    refused = await apart(cases[:6], store.reclaims.settle)
    await leaders("another").take(0.0)
    with pytest.raises(NotLeaderError):
        await apart(cases[4:], store.reclaims.settle)

    assert refused == []
    assert await host.count("RUNNING", "w4") == 1
    assert await host.count("PENDING") == 5
