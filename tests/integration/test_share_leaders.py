"""Leaders of shares: each its own, and none beside those who divide the workers otherwise."""

import asyncio
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
from structlog.testing import capture_logs

from liveness.errors import DatabaseAwayError, NotLeaderError
from liveness.leadership import INTERVAL_MOST, LOOKS_IN_A_TIMEOUT
from liveness.share import Share
from liveness.store import Database, Leader
from liveness.store.leader import TRIES_UNSAID
from liveness.store.statements import leader_statement
from tests.conftest import SOON, HostTables

HOUR = 3600.0
# How a service of before this schema takes the lead.
OLD_TAKE = (
    "UPDATE liveness.leader SET term = term + 1, holder = 'old:1', renewed_at = clock_timestamp()"
    " WHERE renewed_at < clock_timestamp() - interval '1 s' RETURNING term"
)
SILENT = "UPDATE liveness.{} SET renewed_at = now() - make_interval(secs => $1) WHERE holder IS NOT NULL"
LONG_SILENT = "UPDATE liveness.{} SET renewed_at = now() - interval '11 s' WHERE holder IS NOT NULL"
Leaders = Callable[..., Leader]


@pytest.fixture
async def leaders(dsn: str) -> AsyncIterator[Leaders]:
    """Make the leader's part of replicas, each with connections of its own."""
    opened = []

    def make(index: int = 0, count: int = 0, *, acts: bool = True, lock_timeout: float = SOON) -> Leader:
        opened.append(Database(dsn, lock_timeout))
        share = Share(index, count) if count else None
        return Leader(opened[-1], f"{index}/{count}:{len(opened)}", acts=acts, share=share)

    yield make
    for database in opened:
        database.terminate()


async def test_shares_lead_beside_each_other_and_one_of_each(leaders: Leaders) -> None:
    """Each under its own terms; a second replica of a share sees who leads it."""
    first, second, again = leaders(0, 2), leaders(1, 2), leaders(0, 2)

    assert [await one.take(HOUR) for one in (first, second, again)] == [True, True, False]
    assert (first.term, second.term, again.term) == (1, 1, None)
    assert (await again.seen()).holder == first.holder
    assert (first.trouble, again.trouble) == (None, None)
    assert await first.renew()
    async with first.transaction(), second.transaction():
        pass


@pytest.mark.parametrize(("one", "other"), [((0, 0), (0, 2)), ((0, 2), (0, 0)), ((1, 2), (0, 3)), ((0, 1), (0, 0))])
async def test_nobody_leads_beside_those_who_divide_otherwise(
    leaders: Leaders, one: tuple[int, int], other: tuple[int, int]
) -> None:
    """It is said who does; and the term begins when that one has gone."""
    first, second = leaders(*one), leaders(*other)
    await first.take(HOUR)

    with capture_logs() as logs:
        assert not await second.take(0.0)
        assert not await second.take(0.0)
    assert [line["event"] for line in logs] == ["others_lead"]
    assert first.holder in (second.trouble or "")
    assert await first.renew()

    await first.release()
    assert await second.take(0.0)
    assert (second.trouble, second.after_others, first.after_others) == (None, True, False)
    await second.release()
    assert await second.take(0.0)
    assert not second.after_others


async def test_a_service_of_before_does_not_lead_beside_shares(host: HostTables, leaders: Leaders) -> None:
    """It knows nothing of them, and Postgres keeps it away; so are they from it."""
    share = leaders(0, 2)
    await share.take(HOUR)

    assert await host.connection.fetchval(OLD_TAKE) is None
    await share.release()
    assert await host.connection.fetchval(OLD_TAKE) == 1
    assert not await share.take(0.0)


@pytest.mark.parametrize(("one", "other", "table"), [((0, 0), (0, 2), "leader"), ((1, 2), (0, 3), "share_leader")])
async def test_a_leader_that_was_not_seen_for_long_loses_its_term_to_those_who_divide_otherwise(
    host: HostTables, leaders: Leaders, one: tuple[int, int], other: tuple[int, int], table: str
) -> None:
    """It may only have been paused: what it does then fails on its term."""
    paused, new = leaders(*one), leaders(*other)
    await paused.take(HOUR)
    await host.connection.execute(LONG_SILENT.format(table))

    assert await new.take(HOUR)

    with pytest.raises(NotLeaderError):
        async with paused.transaction():
            pass
    assert not await paused.renew()
    assert not await paused.take(0.0)


@pytest.mark.parametrize(("one", "other", "table"), [((0, 0), (0, 2), "leader"), ((1, 2), (0, 0), "share_leader")])
async def test_such_a_takeover_waits_for_what_is_under_way(
    host: HostTables, leaders: Leaders, one: tuple[int, int], other: tuple[int, int], table: str
) -> None:
    """As between two terms, there is no moment in which both can write."""
    paused, new = leaders(*one), leaders(*other, lock_timeout=0.01)
    await paused.take(HOUR)

    async with paused.transaction():
        await host.connection.execute(LONG_SILENT.format(table))
        assert not await new.take(0.0)
    assert await new.take(0.0)


@pytest.mark.parametrize(("one", "other"), [((0, 0), (0, 2)), ((1, 2), (0, 0)), ((1, 2), (0, 3))])
async def test_who_divides_otherwise_waits_for_what_is_under_way_in_a_term_that_was_released(
    host: HostTables, leaders: Leaders, one: tuple[int, int], other: tuple[int, int]
) -> None:
    """A leader that leaves breaks nothing off, and what it still commits has to be known to the next."""
    leaving, new = leaders(*one), leaders(*other)
    await leaving.take(HOUR)

    async with leaving.transaction() as connection:
        await connection.execute("INSERT INTO worker (worker_name) VALUES ('late')")
        await leaving.release()
        assert not await new.take(HOUR)
    assert await host.worker_status("late")
    assert await new.take(HOUR)


async def test_who_waits_for_those_who_divide_otherwise_keeps_none_of_them_from_going_on(
    dsn: str, leaders: Leaders
) -> None:
    """However long it stands still in a try, a leader renews."""
    first, second = leaders(lock_timeout=0.01), leaders(0, 2)
    await first.take(HOUR)
    await second.take(HOUR)
    trying = await asyncpg.connect(dsn)

    async with trying.transaction():
        took = await trying.fetchrow(leader_statement("leader_take", Share(0, 2)), "0/2", 0.0, True)  # noqa: FBT003
        assert took is not None
        assert (took["term"], took["there"]) == (None, True)
        assert await first.renew()
    await trying.close()


@pytest.mark.parametrize(("one", "other", "table"), [((0, 0), (0, 2), "leader"), ((1, 2), (0, 0), "share_leader")])
async def test_a_leader_that_renews_as_seldom_as_it_may_is_seen_by_those_who_divide_otherwise(
    host: HostTables, leaders: Leaders, one: tuple[int, int], other: tuple[int, int], table: str
) -> None:
    """Though all renewals but the last fail before it would be succeeded by one of its own."""
    leader, new = leaders(*one), leaders(*other)
    await leader.take(HOUR)
    await host.connection.execute(SILENT.format(table), LOOKS_IN_A_TIMEOUT * INTERVAL_MOST)

    assert not await new.take(HOUR)
    assert await leader.renew()


async def test_of_two_divisions_that_begin_at_once_one_leads(leaders: Leaders) -> None:
    """Whichever it is, however often it is tried."""
    for _ in range(20):
        candidates = [leaders(0, 2), leaders(0, 3), leaders(), leaders(1, 3)]
        await asyncio.gather(*(one.take(HOUR) for one in candidates))
        divisions = {one._share.count if one._share else 0 for one in candidates if one.term is not None}
        assert len(divisions) == 1
        for one in candidates:
            await one.release()
            one._database.terminate()


async def test_who_only_observes_keeps_nobody_away(leaders: Leaders) -> None:
    """A service that acts leads, however the other divides; not so the other way round."""
    observing, acting = leaders(acts=False), leaders(0, 2)
    await observing.take(HOUR)

    assert await acting.take(HOUR)
    assert not await observing.renew()
    assert not await observing.take(0.0)


async def test_the_row_of_a_share_is_made_whenever_it_is_missing(host: HostTables, leaders: Leaders) -> None:
    """A backup may be restored beneath a service that runs; what it did before does not count."""
    leader = leaders(0, 2)
    await leader.take(HOUR)
    await host.connection.execute(
        "ALTER TABLE liveness.share_leader DISABLE TRIGGER ALL; DELETE FROM liveness.share_leader"
    )
    await host.connection.execute("ALTER TABLE liveness.share_leader ENABLE TRIGGER ALL")

    assert not await leader.renew()
    assert await leader.take(HOUR)
    with pytest.raises(asyncpg.RaiseError, match="has to stay"):
        await host.connection.execute("DELETE FROM liveness.share_leader")


async def test_who_wants_a_share_ends_no_session_that_acts_for_another(leaders: Leaders) -> None:
    """Though its client stands still: it is in nobody's way."""
    leading, wanting, other = leaders(0, 2), leaders(0, 2, lock_timeout=0.2), leaders(1, 2)
    await leading.take(HOUR)
    await other.take(HOUR)

    with capture_logs() as logs:
        async with other.transaction() as still, leading.transaction() as connection:
            # The driver leaves it so, and sends the rest with the parameters: here, not soon.
            statement = await still.prepare("SELECT $1::int")
            working = asyncio.create_task(connection.execute("SELECT pg_sleep(1.8)"))
            while not working.done():
                assert not await wanting.take(0.0)
            await working
            assert await statement.fetchval(7) == 7
    assert "sessions_ended" not in [line["event"] for line in logs]
    assert await wanting.take(0.0)


async def test_a_leader_of_a_share_that_is_paused_in_the_middle_of_a_statement_is_succeeded(leaders: Leaders) -> None:
    """As one of everybody is: who wants its share ends its session."""
    first, second = leaders(0, 2), leaders(0, 2, lock_timeout=0.2)
    await first.take(HOUR)

    async def paused() -> None:
        async with first.transaction() as connection:
            await connection.prepare("SELECT $1::int")
            while not await second.take(0.0):
                pass

    with pytest.raises(DatabaseAwayError):
        await asyncio.wait_for(paused(), SOON)
    assert second.term == 2


@pytest.mark.parametrize(
    ("one", "other", "table"),
    [((0, 0), (0, 2), "leader"), ((1, 2), (0, 0), "share_leader"), ((1, 2), (0, 3), "share_leader")],
)
async def test_a_leader_that_is_paused_in_the_middle_of_a_statement_is_succeeded_by_those_who_divide_otherwise(
    host: HostTables, leaders: Leaders, one: tuple[int, int], other: tuple[int, int], table: str
) -> None:
    """Its session is ended when it was not seen for long, and not while it was, however still that stands."""
    first, second = leaders(*one), leaders(*other)
    await first.take(HOUR)

    async def paused() -> None:
        async with first.transaction() as connection:
            statement = await connection.prepare("SELECT $1::int")
            # Longer than any session may stand still.
            await host.connection.execute("SELECT pg_sleep(1.1)")
            await second._end_sessions()
            assert await statement.fetchval(7) == 7
            await connection.prepare("SELECT $1::int")
            await host.connection.execute(LONG_SILENT.format(table))
            while not await second.take(HOUR):
                pass

    with pytest.raises(DatabaseAwayError):
        await asyncio.wait_for(paused(), SOON)
    assert second.term is not None


@pytest.mark.parametrize(
    ("wants", "held"),
    [((0, 2), "share_leader"), ((0, 2), "leader"), ((0, 3), "share_leader"), ((0, 0), "share_leader")],
)
async def test_it_is_said_of_which_table_a_row_is_held(
    dsn: str, leaders: Leaders, wants: tuple[int, int], held: str
) -> None:
    """By a session that is nobody's to end: one's own row, or that of another division."""
    former, leader = leaders(0, 2), leaders(*wants, lock_timeout=0.01)
    await former.take(HOUR)
    await former.release()
    stranger = await asyncpg.connect(dsn)

    async with stranger.transaction():
        await stranger.execute(f"SELECT FROM liveness.{held} FOR KEY SHARE")
        with capture_logs() as logs:
            taken = [await leader.take(0.0) for _ in range(TRIES_UNSAID)]
        assert taken == [False] * TRIES_UNSAID
        assert f"liveness.{held} " in (leader.trouble or "")
        assert [(line["event"], f"liveness.{held}:" in line["advice"]) for line in logs] == [("lead_kept_out", True)]
    await stranger.close()
    assert await leader.take(0.0)
    assert leader.trouble is None
