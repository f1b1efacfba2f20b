"""The connection to Postgres: a pool, one kind of transaction, and errors by what can be done about them.

Only `liveness.store` imports asyncpg. It works behind a pooler in transaction mode: no prepared statement is kept, and
no session state is relied on but LISTEN, which is only a hint.
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import asyncpg
import structlog

from liveness.errors import CannotStartError, DatabaseAwayError, DatabaseRefusedError, SettingsError

log = structlog.get_logger("liveness.database")

# Enough for the duties that can be under way at once (expiry, finish, sweep, relay, a command), and few beside the
# host's own connections.
POOL_SIZE = 6
CONNECT_SECONDS = 5.0
# A reclaim of a full chunk takes well under a second; what takes this long hangs. asyncpg waits as long again for its
# cancellation to be answered.
COMMAND_SECONDS = 30.0
# Closing is a courtesy to Postgres; a server that hangs does not get more of it.
CLOSE_SECONDS = 0.5
# The first wait for a server that is not up yet, and the longest.
BACKOFF_LEAST, BACKOFF_MOST = 0.2, 5.0
# How often the connection that listens is asked whether it still lives: a dead one is silent.
LISTEN_CHECK_SECONDS = 5.0

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

# What may go away by itself: the server is gone, starting, stopping, full, read-only, or somebody holds a lock.
_AWAY = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
# What waiting does not mend when a connection is made.
_CONNECT_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.ProtocolViolationError,
)


@contextlib.contextmanager
def answers() -> Iterator[None]:
    """Turn the driver's errors into DatabaseAwayError (try again later) or DatabaseRefusedError (do not)."""
    try:
        yield
    except _AWAY as error:
        raise DatabaseAwayError(f"{type(error).__name__}: {_one_line(error)}") from error
    except asyncpg.PostgresError as error:
        raise DatabaseRefusedError(f"{type(error).__name__}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or "no answer in time"


class Database:
    """A pool of connections to the host's database."""

    def __init__(self, dsn: str, lock_timeout: float = 1.0) -> None:
        """`lock_timeout` in seconds. Raises SettingsError for a DSN that does not parse."""
        self._lock_timeout = f"{max(round(lock_timeout * 1000), 1)}ms"
        try:
            self._pool = asyncpg.create_pool(
                dsn,
                # Connections are made when needed. A floor would have asyncpg reconnect in the background and log a
                # traceback at each try while the server is away.
                min_size=0,
                max_size=POOL_SIZE,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS,
                # A pooler in transaction mode hands the next transaction another connection, without our statements.
                statement_cache_size=0,
                server_settings={"application_name": "liveness"},
            )
        except (ValueError, asyncpg.InterfaceError) as error:
            raise SettingsError(f"postgres_dsn cannot be used: {_one_line(error)}") from error
        self.away_since: float | None = None

    async def connect(self, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Wait, with back-off, until Postgres answers.

        `on_wait` is told the cause, once per cause. Raises CannotStartError for what waiting does not mend (wrong
        password, no such database) and SettingsError for an unusable DSN.
        """
        told: set[str] = set()
        wait = BACKOFF_LEAST
        while True:
            try:
                await self._pool
                async with self._pool.acquire() as connection:
                    await connection.execute("SELECT 1")
            except _CONNECT_REFUSED as error:
                raise CannotStartError(f"Postgres refuses the connection: {_one_line(error)}") from error
            except ValueError as error:
                raise SettingsError(f"postgres_dsn cannot be used: {_one_line(error)}") from error
            except (*_AWAY, asyncpg.PostgresError) as error:
                cause = _one_line(error)
                if cause not in told:
                    told.add(cause)
                    on_wait(cause)
                # Jitter: replicas that lost the same server must not come back in step.
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
                wait = min(wait * 2, BACKOFF_MOST)
            else:
                return

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction that never waits long for a lock and speaks UTC.

        READ COMMITTED because every UPDATE of ours re-checks what it believes on the row as it is then; a stricter
        level would fail instead. Raises DatabaseAwayError, DatabaseRefusedError.
        """
        with answers():
            # Nothing is done the second time.
            await self._pool
            async with self._pool.acquire() as connection:
                try:
                    async with connection.transaction(isolation="read_committed"):
                        await connection.execute(
                            "SELECT set_config('lock_timeout', $1, true), set_config('timezone', 'UTC', true)",
                            self._lock_timeout,
                        )
                        yield connection
                except asyncpg.ReadOnlySQLTransactionError:
                    # A demoted primary goes on answering; only a new connection can find the new one.
                    await self._pool.expire_connections()
                    raise

    async def fetch(self, statement: str, *parameters: Any) -> list[asyncpg.Record]:
        """Run one statement in a transaction of its own and return its rows."""
        async with self.transaction() as connection:
            return await connection.fetch(statement, *parameters)

    async def listen(self, channel: str, on_notice: Callable[[], None]) -> None:
        """Call `on_notice` at every NOTIFY on `channel`, for ever; after a lost connection, too, for what was missed.

        Only a hint: behind a pooler in transaction mode nothing is heard, and whoever listens has to poll as well.
        """
        while True:
            try:
                with answers():
                    async with self._pool.acquire() as connection:
                        await self._listen_on(connection, channel, on_notice)
            except (DatabaseAwayError, DatabaseRefusedError) as error:
                log.debug("listen_lost", channel=channel, cause=str(error))
                await asyncio.sleep(BACKOFF_LEAST + random.random())  # noqa: S311 - spreads load, guards nothing

    async def _listen_on(self, connection: Connection, channel: str, on_notice: Callable[[], None]) -> None:
        def notice(*_: object) -> None:
            on_notice()

        await connection.add_listener(channel, notice)
        try:
            on_notice()
            while True:
                await asyncio.sleep(LISTEN_CHECK_SECONDS)
                await connection.execute("SELECT 1")
        finally:
            with contextlib.suppress(*_AWAY):
                await connection.remove_listener(channel, notice)

    def terminate(self) -> None:
        """Cut all connections, whatever is under way on them."""
        self._pool.terminate()

    async def close(self) -> None:
        """Close all connections; those that do not end in time are cut."""
        try:
            await asyncio.wait_for(self._pool.close(), CLOSE_SECONDS)
        except (TimeoutError, asyncpg.InterfaceError):
            self._pool.terminate()
