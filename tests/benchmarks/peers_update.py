"""Postgres: a heartbeat is one `UPDATE` of the worker's row, as workflow servers do that know nobody else to ask.

Settings: what was committed is on the disk (`fsync`, `synchronous_commit`, as they come), 8 connections, each with a
prepared statement and one heartbeat under way, each its own transaction. The table is narrow, its primary key the name,
and a page is half full (`fillfactor 50`), as the manual says of a table whose rows are updated all the time: an update
then stays on its page and touches no index.

As a program it is the load: `python -m tests.benchmarks.peers_update PORT WORKERS SECONDS`, which says how many were
committed a second. It speaks the protocol on a raw socket.
"""

import sys
from typing import Final

import asyncpg

from liveness.embedded import PostgresServer
from liveness.embedded.postgres import USER
from tests.benchmarks.child import run, say
from tests.benchmarks.figures import Plan
from tests.benchmarks.flood import READ_BYTES, Lane, flood
from tests.benchmarks.peer import running

CONNECTIONS: Final = 8
_TABLE: Final = """
    CREATE TABLE worker (
        worker_name text PRIMARY KEY,
        status text NOT NULL DEFAULT 'ONLINE',
        last_heartbeat_at timestamptz NOT NULL DEFAULT now()
    ) WITH (fillfactor = 50)
"""
_HEARTBEAT: Final = "UPDATE worker SET last_heartbeat_at = now() WHERE worker_name = $1"
# What ends the answer to one: one row was updated, no transaction is open.
_UPDATED: Final = b"C\x00\x00\x00\x0dUPDATE 1\x00Z\x00\x00\x00\x05I"
_READY: Final = b"Z\x00\x00\x00\x05I"


class Update:
    """The peer."""

    name = "an UPDATE each, Postgres"

    def missing(self) -> str | None:
        """Say what has to be installed for it: nothing, it is there with us."""
        return None

    async def rate(self, plan: Plan) -> float:
        """Start it, and return how many heartbeats a second it has taken, flat out."""
        workers = plan.pick(100_000, 10_000)
        async with running(lambda folder: PostgresServer(folder, durable=True)) as server:
            connection = await asyncpg.connect(server.dsn)
            await connection.execute(_TABLE)
            await connection.execute(
                "INSERT INTO worker (worker_name) SELECT 'worker-' || n FROM generate_series(0, $1::int - 1) AS n",
                workers,
            )
            await connection.execute("VACUUM ANALYZE worker")
            await connection.close()
            return float(await run(__name__, server.port, workers, plan.pick(5, 2)))


class _Lane(Lane):
    """A connection that updates one row at a time."""

    def __init__(self, port: int, workers: range) -> None:
        super().__init__(port, per_chunk=1, depth=1)
        parameters = f"user\0{USER}\0database\0postgres\0\0".encode()
        self._ask((len(parameters) + 8).to_bytes(4, "big") + (196_608).to_bytes(4, "big") + parameters)
        self._ask(_said(b"P", b"beat\0" + _HEARTBEAT.encode() + b"\0\0\0") + _said(b"S", b""))
        self.chunks = [_beat(b"worker-%d" % worker) for worker in workers]
        self._rest = b""

    def answered(self, data: bytes) -> int:
        data = self._rest + data
        done = data.count(_UPDATED)
        if data.count(_READY) > done:
            raise RuntimeError(f"Postgres refuses: {data[:300]!r}")
        self._rest = b"" if data.endswith(_READY) else data
        return done if not self._rest else 0

    def _ask(self, request: bytes) -> None:
        self.connection.sendall(request)
        answer = b""
        while not answer.endswith(_READY):
            answer += self.connection.recv(READ_BYTES)


def _said(kind: bytes, what: bytes) -> bytes:
    return kind + (len(what) + 4).to_bytes(4, "big") + what


def _beat(name: bytes) -> bytes:
    # Bind the text to the statement, carry it out, and end the transaction.
    bind = b"\0beat\0" + b"\0\0" + b"\0\x01" + len(name).to_bytes(4, "big") + name + b"\0\0"
    return _said(b"B", bind) + _said(b"E", b"\0\0\0\0\0") + _said(b"S", b"")


def _rate(port: int, workers: int, seconds: float) -> None:
    say(flood([_Lane(port, range(start, workers, CONNECTIONS)) for start in range(CONNECTIONS)], seconds))


if __name__ == "__main__":
    _rate(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
