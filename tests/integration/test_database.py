"""The connection to Postgres: what hangs, what is too slow, what is broken off."""

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from liveness.embedded import PostgresServer
from liveness.errors import AccessError, DatabaseAwayError, NotLeaderError
from liveness.store import Database, database
from tests.conftest import SOON
from tests.outages.proxy import Proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what hangs, or is too slow, be found soon."""
    monkeypatch.setattr(database, "BEGIN_SECONDS", 0.5)
    monkeypatch.setattr(database, "COMMAND_SECONDS", 0.2)
    monkeypatch.setattr(database, "GRACE_SECONDS", 0.3)


@pytest.fixture
async def proxy(postgres: PostgresServer) -> AsyncIterator[Proxy]:
    """A proxy before Postgres that can leave connections half-open."""
    made = Proxy(postgres.port)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def proxied(proxy: Proxy, dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """The fresh database by way of the proxy, with four connections made; only to begin may not take long."""
    monkeypatch.setattr(database, "BEGIN_SECONDS", 0.5)
    monkeypatch.setattr(database, "COMMAND_SECONDS", 10 * SOON)
    made = Database(f"postgresql://postgres@127.0.0.1:{proxy.port}/{dsn.rpartition('/')[2]}")
    await made.connect()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(made.transaction())
    yield made
    made.terminate()


async def test_half_open_connections_cost_one_wait_and_not_one_each(proxied: Database, proxy: Proxy) -> None:
    """The first that hangs is noticed by its BEGIN; the others that lie idle are made anew."""
    proxy.freeze()

    async with asyncio.timeout(SOON):
        with pytest.raises(DatabaseAwayError, match="no answer in time"):
            await proxied.fetch("SELECT 1")
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(proxied.transaction())


async def test_what_acts_beside_a_connection_that_hangs_is_not_broken_off(proxied: Database, proxy: Proxy) -> None:
    """Only the idle ones are given up."""
    proxy.freeze()
    # The frozen ones are drawn first.
    drawn = [await proxied._pool.acquire() for _ in range(4)]
    async with proxied.transaction() as connection:
        await proxied._pool.release(drawn[0])
        with pytest.raises(DatabaseAwayError):
            await proxied.fetch("SELECT 1")
        assert await connection.fetchval("SELECT 1") == 1
    for one in drawn[1:]:
        with pytest.raises(asyncpg.InterfaceError, match="released"):
            one.is_closed()


async def test_a_connection_that_hangs_in_a_transaction_is_given_up(
    proxy: Proxy, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time that Postgres would have had to break the statement off itself; nothing is waited for after."""
    monkeypatch.setattr(database, "COMMAND_SECONDS", 0.5)
    monkeypatch.setattr(database, "GRACE_SECONDS", 0.6)
    proxied = Database(f"postgresql://postgres@127.0.0.1:{proxy.port}/{dsn.rpartition('/')[2]}", 0.1)

    async def hang() -> None:
        async with proxied.transaction() as connection:
            proxy.freeze()
            await connection.execute("SELECT 1")

    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(DatabaseAwayError, match="no answer in time"):
        await hang()

    # A rollback, or a cancellation, that is waited for takes as long again.
    assert 1.2 <= loop.time() - began < 2.2
    assert len(await proxied.fetch("SELECT 1")) == 1
    proxied.terminate()


@pytest.mark.usefixtures("impatient")
async def test_a_statement_that_is_too_slow_is_broken_off_by_postgres(dsn: str) -> None:
    """It counts as an outage; the connection is as good as before; who said that it may take long, may."""
    slow = Database(dsn, 0.1)

    (before,) = await slow.fetch("SELECT pg_backend_pid()")
    with pytest.raises(DatabaseAwayError, match="QueryCanceledError"):
        await slow.fetch("SELECT pg_sleep(60)")
    (after,) = await slow.fetch("SELECT pg_backend_pid()")
    (patient,) = await slow.fetch("SELECT pg_sleep(1), 1", patient=True)

    assert before == after
    assert patient[1] == 1
    await slow.close()


@pytest.mark.parametrize("error", [NotLeaderError("not me"), KeyError("mine"), asyncio.CancelledError()])
async def test_whatever_breaks_a_transaction_off_comes_through_and_undoes_it(dsn: str, error: BaseException) -> None:
    """And the connection is used again."""
    one = Database(dsn)
    (before,) = await one.fetch("SELECT pg_backend_pid()")
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))

    async def broken() -> None:
        async with one.transaction() as connection:
            await connection.execute("INSERT INTO worker (worker_name) VALUES ('undone')")
            raise error

    with pytest.raises(type(error)):
        await broken()

    assert await one.fetch("SELECT FROM worker") == []
    assert await one.fetch("SELECT pg_backend_pid()") == [before]
    # The driver finds no transaction that somebody left open.
    assert complaints == []
    await one.close()


async def test_a_statement_that_is_cancelled_leaves_a_connection_that_works(dsn: str) -> None:
    """Also when nobody waits for its end."""
    one = Database(dsn)
    watching = await asyncpg.connect(dsn)
    running = asyncio.create_task(one.fetch("SELECT pg_sleep(60)", patient=True))
    async with asyncio.timeout(SOON):
        while not await watching.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(await one.fetch("SELECT 1")) == 1
    await watching.close()
    await one.close()


async def test_a_server_that_vanishes_is_noticed_by_the_kernel(dsn: str) -> None:
    """What is not acknowledged for three seconds ends the connection."""
    one = Database(dsn)
    async with one.transaction() as connection:
        transport: Any = connection._transport  # type: ignore[attr-defined]
        raw = transport.get_extra_info("socket")
        assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 3000
    await one.close()


async def test_who_listens_is_told_at_once_that_it_may_have_missed_something(dsn: str) -> None:
    """A listening connection that ends is replaced without waiting for the next look at it."""
    one = Database(dsn)
    await one.connect()
    told: asyncio.Queue[None] = asyncio.Queue()
    listening = asyncio.create_task(one.listen("news", lambda: told.put_nowait(None)))
    async with asyncio.timeout(SOON):
        await told.get()
    other = await asyncpg.connect(dsn)

    await other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")

    # Well below LISTEN_CHECK_SECONDS, well above the back-off.
    async with asyncio.timeout(database.LISTEN_CHECK_SECONDS - 1):
        await told.get()
    listening.cancel()
    await other.close()
    one.terminate()


async def test_a_login_that_is_refused_is_an_outage_and_nobodys_fault(dsn: str, empty_dsn: str) -> None:
    """A password that changes, a database that is closed for a while: whoever asks then is asked for again."""
    fresh, other = Database(dsn), await asyncpg.connect(empty_dsn)
    name = dsn.rpartition("/")[2]
    await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    with pytest.raises(DatabaseAwayError, match=r"no connection.*not currently accepting"):
        await fresh.fetch("SELECT 1")
    await other.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')

    assert len(await fresh.fetch("SELECT 1")) == 1
    await fresh.close()
    await other.close()


async def test_a_password_file_that_is_away_for_a_moment_ends_nothing(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody writes it anew: who connects waits, and so does who listens. Of one that never comes is complained."""
    monkeypatch.setattr(database, "ROTATION_SECONDS", 0.1)
    monkeypatch.setattr(database, "BACKOFF_LEAST", 0.05)
    monkeypatch.setattr(random, "random", lambda: 0.0)
    there, asked = asyncio.Event(), asyncio.Event()

    def password() -> str:
        asked.set()
        if not there.is_set():
            raise AccessError("postgres_password_file = 'p' cannot be read: No such file or directory")
        return "anything"

    one = Database(dsn, password=password)
    with pytest.raises(AccessError, match="postgres_password_file"):
        await one.connect()
    await one.connect(lambda _: there.set())

    # It restarted, and the file is away for longer than at a first start.
    there.clear()
    asked.clear()
    await one._pool.expire_connections()
    heard = asyncio.Event()
    listening = asyncio.create_task(one.listen("news", heard.set))
    async with asyncio.timeout(SOON):
        await asked.wait()
        monkeypatch.setattr(database, "ROTATION_SECONDS", 0.0)
        await one.connect(lambda _: there.set())
        await heard.wait()
    listening.cancel()
    one.terminate()


async def test_a_step_that_is_cancelled_is_not_done_again(dsn: str) -> None:
    """The driver, cancelled inside a transaction, complains of the connection; whoever set the limit wants to go on."""
    steps = 0

    async def step() -> None:
        nonlocal steps
        steps += 1
        try:
            await asyncio.sleep(SOON)
        except asyncio.CancelledError as error:
            raise DatabaseAwayError("the connection was closed in the middle of it") from error

    asked = Database(dsn)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await asked.insist(step)
    await asked.close()
    assert steps == 1


async def test_whoever_is_cancelled_waits_for_postgres_no_more(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the driver, or wait_for of Python 3.11, has only a failed attempt to tell of."""
    attempts = 0

    @contextlib.asynccontextmanager
    async def refused(**_: bool) -> AsyncIterator[None]:
        nonlocal attempts
        attempts += 1
        assert attempts == 1
        try:
            await asyncio.sleep(SOON)
        except asyncio.CancelledError as error:
            raise ConnectionRefusedError from error
        yield

    asked = Database(dsn)
    monkeypatch.setattr(asked, "_transaction", refused)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await asked.connect()
    await asked.close()
