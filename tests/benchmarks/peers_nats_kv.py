"""NATS KV: a heartbeat is a put that states its own ttl, and the end of a key is the marker that the server leaves.

Settings, as its clients make a bucket: a JetStream stream in files, of one replica, that keeps the newest value of each
key, with `limit_marker_ttl`, by which keys may have ttls of their own and an end is told. Everything else as it comes.
Each put is acknowledged; 4 connections, 256 puts under way on each: clients publish without waiting for the
acknowledgement before, 4,000 at most by default.

As a program it is the load: `python -m tests.benchmarks.peers_nats_kv rate PORT WORKERS SECONDS`, which says how many
puts were acknowledged a second, or `... ends PORT COUNT TTL`, which says what `expiries.watch` says.
"""

import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Final

import nats
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, KeyValueConfig, StorageType

from liveness.embedded import NatsServer
from tests.benchmarks.child import run, say
from tests.benchmarks.expiries import watch
from tests.benchmarks.figures import Plan
from tests.benchmarks.flood import HOST, READ_BYTES, Lane, flood, in_chunks
from tests.benchmarks.load import payload
from tests.benchmarks.peer import SHORT_TTL, TTL, running

BUCKET: Final = "heartbeats"
STREAM: Final = f"KV_{BUCKET}"
SUBJECT: Final = f"$KV.{BUCKET}.worker-"
# How long a marker is kept, seconds.
MARKER_SECONDS: Final = 60
CONNECTIONS: Final = 4
CHUNK: Final = 128
_ENDS: Final = "_INBOX.ends"
_MARKER: Final = re.compile(
    rb"HMSG \$KV\.\w+\.worker-(\d+) [^\r]*\r\nNATS/1\.0\r\n(?:[^\r]+\r\n)*?Nats-Marker-Reason: MaxAge\r\n"
)


class NatsKv:
    """The peer."""

    name = "NATS KV"

    def missing(self) -> str | None:
        """Say what has to be installed for it: nothing, it is there with us."""
        return None

    async def rate(self, plan: Plan) -> float:
        """Start it, and return how many heartbeats a second it has taken, flat out."""
        async with running(NatsServer) as server:
            await _make_bucket(server.url)
            return float(await run(__name__, "rate", server.port, plan.pick(100_000, 10_000), plan.pick(5, 2)))

    async def lateness(self, plan: Plan) -> list[float]:
        """Start it, and return how long after the ttl each end was seen, seconds. It has nothing else to do."""
        async with running(NatsServer) as server:
            await _make_bucket(server.url)
            await _watch_bucket(server.url)
            said = await run(__name__, "ends", server.port, plan.pick(400, 200), SHORT_TTL)
        assert not said["unseen"], said
        return list(said["late"])


async def _make_bucket(url: str) -> None:
    client = await nats.connect(url)
    await client.jetstream().create_key_value(
        KeyValueConfig(BUCKET, storage=StorageType.FILE, limit_marker_ttl=MARKER_SECONDS)
    )
    await client.close()


async def _watch_bucket(url: str) -> None:
    client = await nats.connect(url)
    # What a watch of the bucket is, but that it hears nothing of what was there before.
    await client.jetstream().add_consumer(
        STREAM,
        ConsumerConfig(
            deliver_subject=_ENDS, deliver_policy=DeliverPolicy.NEW, ack_policy=AckPolicy.NONE, headers_only=True,
            mem_storage=True,
        ),
    )  # fmt: skip
    await client.close()


def put(worker: int, ttl: int, reply: str) -> bytes:
    """Return one heartbeat as its protocol has it."""
    said = payload("short", worker, 0, "")
    headers = b"NATS/1.0\r\nNats-TTL: %ds\r\n\r\n" % ttl
    sizes = (len(headers), len(headers) + len(said))
    return b"HPUB %b%d %b %d %d\r\n%b%b\r\n" % (SUBJECT.encode(), worker, reply.encode(), *sizes, headers, said)


class _Lane(Lane):
    """A connection of puts, each with an inbox for its acknowledgement."""

    def __init__(self, port: int, workers: range, ttl: int = TTL, *, per_chunk: int = CHUNK, depth: int = 2) -> None:
        super().__init__(port, per_chunk=per_chunk, depth=depth)
        self._rest = b""
        inbox = f"_INBOX.acks.{workers.start}"
        subscribe(self.connection, inbox)
        self.chunks = in_chunks([put(worker, ttl, inbox) for worker in workers], per_chunk)

    def answered(self, data: bytes) -> int:
        # Whole lines only, as what is looked for may be cut anywhere.
        lines, _, self._rest = (self._rest + data).rpartition(b"\n")
        answer_ping(self.connection, lines)
        if b'"error"' in lines or b"-ERR" in lines or b"NATS/1.0 503" in lines:
            raise RuntimeError(f"NATS refuses: {lines[:300]!r}")
        return lines.count(b'"seq":')


def subscribe(connection: socket.socket, subject: str) -> None:
    """Introduce us on a new connection, and hear `subject` from when this returns."""
    connection.sendall(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
    connection.sendall(f"SUB {subject} 1\r\nPING\r\n".encode())
    greeting = b""
    while b"PONG\r\n" not in greeting:
        greeting += connection.recv(READ_BYTES)


def answer_ping(connection: socket.socket, lines: bytes) -> None:
    """Answer the server if it asks whether we are there."""
    if b"PING\r" in lines:
        connection.sendall(b"PONG\r\n")


def _rate(port: int, workers: int, seconds: float) -> None:
    say(flood([_Lane(port, range(start, workers, CONNECTIONS)) for start in range(CONNECTIONS)], seconds))


def _ends(port: int, count: int, ttl: int) -> None:
    ears = socket.create_connection((HOST, port))
    subscribe(ears, _ENDS)
    lane = _Lane(port, range(count), ttl, per_chunk=1, depth=1)

    def one(key: int) -> float:
        sent = time.monotonic()
        lane.connection.sendall(lane.chunks[key])
        while not lane.answered(lane.connection.recv(READ_BYTES)):
            pass
        return sent

    watch(count, ttl, one, _marked(ears))


def _marked(ears: socket.socket) -> Iterator[int]:
    rest = b""
    while data := ears.recv(READ_BYTES):
        answer_ping(ears, data)
        rest += data
        end = 0
        for marker in _MARKER.finditer(rest):
            end = marker.end()
            yield int(marker[1])
        # A put that is not a marker stays until the next marker has come: there are few.
        rest = rest[end:]


if __name__ == "__main__":
    if sys.argv[1] == "rate":
        _rate(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    else:
        _ends(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
