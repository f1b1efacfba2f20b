"""The connection to Postgres: a pool, one kind of transaction, and errors by what can be done about them.

It works behind a pooler in transaction mode: no statement stays prepared, and LISTEN is only a hint.
"""

import asyncio
import contextlib
import random
import socket
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Self, TypeAlias, TypeVar

import asyncpg
import structlog

from liveness import spans
from liveness.bounded import cancellations
from liveness.errors import (
    CannotStartError,
    ContestedError,
    DatabaseAwayError,
    DatabaseRefusedError,
    PausedError,
    SettingsError,
)
from liveness.postgres_settings import PostgresSettings, tls_refusal, unusable_dsn

log = structlog.get_logger("liveness.database")

# Enough for the duties that can be under way at once (expiry, grants, finish, sweep, relay, checkpoint, doubting,
# comparing, a command) and for the connection that listens, and few beside the host's own connections.
POOL_SIZE = 10
CONNECT_SECONDS = 3.0
# What was sent and not even acknowledged for this time was sent to a server that is gone without a word (a failover
# that moves the address, a cut cable). One that is only slow, or paused, has a kernel that acknowledges.
VANISHED_SECONDS = 3.0
# To begin a transaction costs Postgres nothing, so a connection that does not within this time is half-open (behind a
# proxy or pooler that hangs, it is acknowledged all the same), or everything stands still.
BEGIN_SECONDS = 2.0
# What a statement may take, beyond waiting for a lock; Postgres itself breaks it off. Nearly all take milliseconds.
COMMAND_SECONDS = 3.0
# Except those whose work grows with the host's tables, or with what one life held.
PATIENT_SECONDS = 30.0
# So much later than Postgres should have broken it off, a statement is taken to be on a connection that hangs.
GRACE_SECONDS = 1.0
# The leader's renewals have a connection of their own: a leader whose duties use up the pool must not lose its term for
# that.
RESERVED_SIZE = 1
CONNECTIONS_MOST = POOL_SIZE + RESERVED_SIZE
# A process that stands still in the middle of a transaction holds the host's rows, and the leader's row, which the next
# leader waits for. Postgres ends such a session after this time (local to the transaction, as all settings). It is
# longer than any stall of a loop that is healthy, and no longer than the default leader_timeout: when the others find
# that a leader stands still between two statements, its locks are gone, too.
IDLE_SECONDS = 1.0
# Closing is a courtesy to Postgres; a server that hangs does not get more of it.
CLOSE_SECONDS = 0.5
# The first wait for a server that is not up yet, and the longest: when it is back, everything has to work again within
# about a second, and the few connections that wait cost it nothing.
BACKOFF_LEAST, BACKOFF_MOST = 0.2, 1.5
# Before a step of a start that Postgres broke off is tried again.
AGAIN_SECONDS = 0.5
# How long a file with a password may be away, or empty, at the first connection: it is perhaps just being written anew.
ROTATION_SECONDS = 2.0
# How often the connection that listens is asked whether it still lives: one to a server that vanished is silent.
LISTEN_CHECK_SECONDS = 5.0

# For a statement in a patient transaction.
PATIENCE = PATIENT_SECONDS + GRACE_SECONDS

Done = TypeVar("Done")

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
# What waiting does not mend when a connection is made. Not ProtocolViolationError: a pooler calls nearly everything so,
# that it is full, or that its server is away.
_CONNECT_REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
# What a trigger of ours says to whoever takes anything while an operator has paused.
_PAUSED = "LV001"
# What concerns some of the rows that were asked for, and not the server: somebody holds what they need.
_CONTESTED = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


@contextlib.contextmanager
def contested() -> Iterator[None]:
    """Turn what only some of the rows asked for can be the cause of into ContestedError: they are set apart."""
    try:
        yield
    except _CONTESTED as error:
        raise ContestedError(f"{type(error).__name__}: {_one_line(error)}") from error


@contextlib.contextmanager
def answers() -> Iterator[None]:
    """Turn the driver's errors into DatabaseAwayError (try again later), DatabaseRefusedError (do not), PausedError."""
    try:
        yield
    except _AWAY as error:
        raise DatabaseAwayError(f"{type(error).__name__}: {_one_line(error)}") from error
    except asyncpg.PostgresError as error:
        if error.sqlstate == _PAUSED:
            raise PausedError(_one_line(error)) from error
        raise DatabaseRefusedError(f"{type(error).__name__}: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    text = str(error)
    if isinstance(error, asyncpg.PostgresError):
        # Not the DETAIL: it shows a row of the host's ("Failing row contains"), and this is logged, kept and answered.
        text = " ".join(str(part) for part in (*error.args[:1], error.hint) if part)
    return " ".join(text.split()) or "no answer in time"


def _unmendable(dsn: str, error: Exception) -> Exception | None:
    if isinstance(error, _CONNECT_REFUSED):
        return CannotStartError(f"Postgres refuses the connection: {_one_line(error)}")
    if (refusal := tls_refusal(dsn, error)) is not None:
        return CannotStartError(refusal)
    if isinstance(error, SettingsError):
        return error
    return unusable_dsn(dsn, error) if isinstance(error, ValueError) else None


def milliseconds(seconds: float) -> str:
    """Return `seconds` as a setting of Postgres; 0 would be for ever."""
    return f"{max(round(seconds * 1000), 1)}ms"


async def _roll_back(connection: Connection) -> None:
    try:
        if not connection.is_closed() and connection.is_in_transaction():
            await connection.execute("ROLLBACK")
    except (*_AWAY, asyncpg.PostgresError):
        # What went wrong before is what counts. Postgres rolls back what it has lost.
        _cut(connection)


def _cut(connection: Connection) -> None:
    # One that is closed already has left the pool, and answers nothing any more.
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()


async def _nothing_to_reset(_: object) -> None:
    """Leave a session as it is: nothing of ours outlives a transaction in it, and behind a pooler it is not ours."""


def _notice_vanishing(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    # asyncpg has no public way to its socket; without one, the time limits end what hangs.
    transport: asyncio.Transport | None = getattr(connection, "_transport", None)
    raw = None if transport is None else transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(VANISHED_SECONDS * 1000))


class Database:
    """A pool of connections to the host's database."""

    def __init__(self, dsn: str, lock_timeout: float = 1.0, password: Callable[[], str] | None = None) -> None:
        """`lock_timeout` in seconds; `password` is asked for each connection, and may raise SettingsError.

        Raises SettingsError for a DSN that does not parse.
        """
        self._dsn = dsn
        self._stood = False
        self.lock_timeout = lock_timeout
        # All that were made, to find those that hang.
        self._connections: weakref.WeakSet[asyncpg.Connection[asyncpg.Record]] = weakref.WeakSet()
        try:
            self._pool = self._new_pool(POOL_SIZE, password)
            self._reserved = self._new_pool(RESERVED_SIZE, password)
        except (ValueError, asyncpg.InterfaceError) as error:
            raise unusable_dsn(dsn, error) from None
        # When a task began or ended a transaction last, by the loop's clock.
        self.steps: weakref.WeakKeyDictionary[asyncio.Task[Any], float] = weakref.WeakKeyDictionary()

    @classmethod
    def of(cls, settings: PostgresSettings, lock_timeout: float = 1.0) -> Self:
        """Return the database that the settings name. Raises SettingsError."""
        return cls(settings.postgres_dsn, lock_timeout, settings.postgres_password)

    async def connect(self, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Wait, with back-off, until Postgres answers.

        `on_wait` is told the cause, once per cause. Where none ever stood, raises CannotStartError for what
        waiting does not mend (wrong password, no such database) and SettingsError for an unusable DSN or password file.
        """
        told: set[str] = set()
        wait = BACKOFF_LEAST
        heed, loop = cancellations(), asyncio.get_running_loop()
        until = loop.time() + ROTATION_SECONDS
        while True:
            try:
                async with self._transaction(reserved=False, patient=False):
                    return
            except (ValueError, SettingsError, *_AWAY, asyncpg.PostgresError) as error:
                # The driver complains of the connection when it is cancelled, or swallows that.
                heed()
                final = _unmendable(self._dsn, error)
                if final and not (self._stood or (isinstance(error, SettingsError) and loop.time() < until)):
                    raise final from None
                cause = _one_line(final or error)
            if cause not in told:
                told.add(cause)
                on_wait(cause)
            # Jitter: replicas that lost the same server must not come back in step.
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            wait = min(wait * 2, BACKOFF_MOST)

    async def insist(
        self, step: Callable[[], Awaitable[Done]], on_wait: Callable[[str], None] = lambda _: None
    ) -> Done:
        """Do one step of a start as often as Postgres goes away in the middle of it; `on_wait` is told why."""
        while True:
            try:
                return await step()
            except DatabaseAwayError as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    # The driver, cancelled inside a transaction, complains of the connection instead.
                    raise asyncio.CancelledError from error
                on_wait(str(error))
                await asyncio.sleep(AGAIN_SECONDS)
                await self.connect(on_wait)

    @contextlib.asynccontextmanager
    async def transaction(self, *, reserved: bool = False, patient: bool = False) -> AsyncIterator[Connection]:
        """A READ COMMITTED transaction that never waits long for a lock, is never idle for long and speaks UTC.

        READ COMMITTED because every UPDATE of ours re-checks what it believes on the row as it is then; a stricter
        level would fail instead. `reserved`: on the connection that is kept free for who leads, waiting for a lock at
        most IDLE_SECONDS. `patient`: Postgres lets a statement take PATIENT_SECONDS, and whoever asks for one that does
        says so, too (`timeout=PATIENCE`). Raises DatabaseAwayError, DatabaseRefusedError.
        """
        begun = False
        try:
            with answers():
                async with self._transaction(reserved=reserved, patient=patient) as connection:
                    begun = True
                    yield connection
        except (DatabaseRefusedError, SettingsError) as error:
            if begun:
                raise
            # A login that is refused for a while (a password that changes, its file being written, a server
            # that starts) is nobody's fault of whom anything was asked.
            raise DatabaseAwayError(f"no connection: {error}") from error

    @contextlib.asynccontextmanager
    async def _transaction(self, *, reserved: bool, patient: bool) -> AsyncIterator[Connection]:
        await self._made()
        # Who holds the leader's row for longer may be silent in it, which has to be looked into soon: see
        # `Leader._end_sessions`.
        lock_timeout = min(self.lock_timeout, IDLE_SECONDS) if reserved else self.lock_timeout
        statement_timeout = PATIENT_SECONDS if patient else COMMAND_SECONDS + self.lock_timeout
        async with (self._reserved if reserved else self._pool).acquire() as connection:
            begun = False
            try:
                async with asyncio.timeout(BEGIN_SECONDS):
                    # All that a transaction begins with goes there and back once. What it writes into the outbox, and
                    # of expirations, bears the trace context by itself (0011_traces.sql).
                    context = spans.carried.get()
                    await connection.execute(
                        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL timezone = 'UTC';"
                        f" SET LOCAL lock_timeout = '{milliseconds(lock_timeout)}';"
                        f" SET LOCAL idle_in_transaction_session_timeout = '{milliseconds(IDLE_SECONDS)}';"
                        f" SET LOCAL statement_timeout = '{milliseconds(statement_timeout)}'"
                        + (f"; SET LOCAL liveness.traceparent = '{context}'" if context else "")
                    )
                begun = True
                self._note_step()
                yield connection
                await connection.execute("COMMIT")
                self._note_step()
            except BaseException as error:
                if isinstance(error, TimeoutError):
                    self._terminate_idle()
                elif isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                    # A demoted primary goes on answering; only a new connection can find the new one.
                    await self._pool.expire_connections()
                    await self._reserved.expire_connections()
                if isinstance(error, TimeoutError) or not begun:
                    # Nobody answers there: a ROLLBACK would not be answered either, nor would a cancellation.
                    _cut(connection)
                else:
                    await _roll_back(connection)
                raise

    def _note_step(self) -> None:
        if (task := asyncio.current_task()) is not None:
            self.steps[task] = asyncio.get_running_loop().time()

    def _terminate_idle(self) -> None:
        # They went the same way. Each would cost its next user the same wait; a new one costs milliseconds.
        for connection in list(self._connections):
            if not connection.is_closed() and not connection.is_in_transaction():
                connection.terminate()

    async def fetch(self, statement: str, *parameters: Any, patient: bool = False) -> list[asyncpg.Record]:
        """Run one statement in a transaction of its own and return its rows. Raises as `transaction` does."""
        async with self.transaction(patient=patient) as connection:
            return await connection.fetch(statement, *parameters, timeout=PATIENCE if patient else None)

    async def listen(self, channel: str, on_notice: Callable[[], None]) -> None:
        """Call `on_notice` at every NOTIFY on `channel`, for ever; after a lost connection, too, for what was missed.

        Only a hint: behind a pooler in transaction mode nothing is heard, and whoever listens has to poll as well.
        """
        while True:
            try:
                with answers():
                    async with self._pool.acquire() as connection:
                        await self._listen_on(connection, channel, on_notice)
            except (DatabaseAwayError, DatabaseRefusedError, SettingsError) as error:
                log.debug("listen_lost", channel=channel, cause=str(error))
                await asyncio.sleep(BACKOFF_LEAST + random.random())  # noqa: S311 - spreads load, guards nothing

    async def _listen_on(self, connection: Connection, channel: str, on_notice: Callable[[], None]) -> None:
        lost = asyncio.Event()

        def notice(*_: object) -> None:
            on_notice()

        def gone(*_: object) -> None:
            lost.set()

        connection.add_termination_listener(gone)
        await connection.add_listener(channel, notice)
        try:
            on_notice()
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LISTEN_CHECK_SECONDS):
                        await lost.wait()
                await connection.execute("SELECT 1")
        finally:
            with contextlib.suppress(*_AWAY):
                connection.remove_termination_listener(gone)
                await connection.remove_listener(channel, notice)

    def _new_pool(self, size: int, password: Callable[[], str] | None) -> "asyncpg.Pool[asyncpg.Record]":
        return asyncpg.create_pool(
            self._dsn,
            password=password,
            # Connections are made when needed. A floor would have asyncpg reconnect in the background and log a
            # traceback at each try while the server is away.
            min_size=0,
            max_size=size,
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS + self.lock_timeout + GRACE_SECONDS,
            # A pooler in transaction mode hands the next transaction another connection, without our statements. And
            # what stays prepared keeps its types: a host that alters its enum would have all reclaims refused.
            statement_cache_size=0,
            server_settings={"application_name": "liveness"},
            init=self._watch,
            reset=_nothing_to_reset,
        )

    async def _watch(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        # What was good enough for one connection will be again.
        self._stood = True
        self._connections.add(connection)
        _notice_vanishing(connection)

    async def _made(self) -> None:
        # asyncpg finishes its pools in a running loop. No connection is made for that; the second time, nothing at all.
        await self._pool
        await self._reserved

    def terminate(self) -> None:
        """Cut all connections, whatever is under way on them."""
        for pool in (self._pool, self._reserved):
            # One that was never used has none.
            with contextlib.suppress(asyncpg.InterfaceError):
                pool.terminate()

    async def close(self) -> None:
        """Close all connections; those that do not end in time are cut."""
        await self._made()
        try:
            await asyncio.wait_for(asyncio.gather(self._pool.close(), self._reserved.close()), CLOSE_SECONDS)
        except (TimeoutError, asyncpg.InterfaceError):
            self.terminate()
