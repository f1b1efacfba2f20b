"""How a session with Postgres is made, and whether statements may stay prepared in it.

A statement that stays is parsed once, and asked once what it takes and returns; planned it is every time, for its own
values: a plan from when a table was empty would read the whole of a large one. From a death under `liveness run` to its
news that makes 21 ms of 28 (medians of four runs each, in turns, on two busy cores).

It needs a session that is ours alone. Behind a pooler in transaction mode the next transaction is in another one, where
our name of a statement means nothing, or another client's; so nothing stays there. Which it is, whoever answers tells:
a pooler does not know beforehand which process will serve a client, and makes up the number that Postgres gives out at
a connection's beginning.
"""

import asyncio
import socket
from typing import Any

import asyncpg

# More than the duties of a service have lately asked for; the others are forgotten. The larger ones take about 75 kB
# each of Postgres' memory.
STATEMENTS_KEPT = 50
CONNECT_SECONDS = 3.0
# What was sent and not even acknowledged for this time was sent to a server that is gone without a word (a failover
# that moves the address, a cut cable). One that is only slow, or paused, has a kernel that acknowledges.
VANISHED_SECONDS = 3.0

# What says that a prepared statement is not what it was: the host has altered a table, or it is not ours.
STALE = (
    asyncpg.InvalidCachedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)


class Sessions:
    """Makes sessions, by way of a pooler or not. `pooled`: whether one was found; then it is not looked for again."""

    def __init__(self) -> None:
        self.pooled = False

    async def connect(self, *arguments: Any, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
        """Return a new session, as `asyncpg.connect` does, with the same arguments and errors."""
        connection: asyncpg.Connection[asyncpg.Record]
        if not self.pooled:
            connection = await asyncpg.connect(*arguments, **options, statement_cache_size=STATEMENTS_KEPT)
            try:
                if await _is_alone(connection):
                    return connection
                self.pooled = True
                await connection.close(timeout=CONNECT_SECONDS)
            except BaseException:
                connection.terminate()
                raise
        connection = await asyncpg.connect(*arguments, **options, statement_cache_size=0)
        return connection


async def _is_alone(connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
    answer = bytearray()

    async def take(some: bytes) -> None:
        answer.extend(some)

    try:
        # Nothing is prepared for a COPY.
        await connection.copy_from_query("SELECT pg_backend_pid()", output=take, timeout=CONNECT_SECONDS)
    except (asyncpg.FeatureNotSupportedError, asyncpg.SyntaxOrAccessError):
        # Something in between that lets no COPY through.
        return False
    return answer.strip() == str(connection.get_server_pid()).encode()


def notice_vanishing(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Have the kernel give up a connection whose other end has vanished."""
    # asyncpg has no public way to its socket; without one, the time limits end what hangs.
    transport: asyncio.Transport | None = getattr(connection, "_transport", None)
    raw = None if transport is None else transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6) and hasattr(socket, "TCP_USER_TIMEOUT"):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(VANISHED_SECONDS * 1000))


async def nothing_to_reset(_: object) -> None:
    """Leave a session as it is: nothing of ours outlives a transaction in it, and behind a pooler it is not ours."""
