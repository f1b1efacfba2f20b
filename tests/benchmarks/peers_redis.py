"""Redis: a heartbeat is `SET worker:<name> 1 EX <ttl>`, and the end of a key is told by a keyspace notification.

Settings, after its manual: no persistence (`save ""`, `appendonly no`), as for whatever may be lost; notifications for
expired keys alone (`notify-keyspace-events Ex`), because each class costs; everything else as it comes. That includes
`hz 10`, by which ends are found ten times a second: "raise this up to 100 only in environments where very low latency
is required", which is measured, too. For the rate 16 connections, 128 commands under way on each: more than the
manual's `redis-benchmark -P 16`, with which Redis spends half its time on reading and writing. So it comes to it as
beats come to us, many in one read, though a worker has nothing to pipeline.

It promises to tell an expired key when it is deleted, not when its time is up; among many keys that live on, a dead one
is found by samples, and much later than here.

As a program it is the load: `python -m tests.benchmarks.peers_redis rate PORT WORKERS SECONDS`, which says how many
were taken a second, or `... ends PORT COUNT TTL`, which says what `expiries.watch` says.
"""

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from liveness.embedded.claim import FolderClaim
from liveness.embedded.process import ServerProcess
from liveness.embedded.server import HOST, EmbeddedServer
from liveness.errors import EmbeddedError
from tests.benchmarks.child import run, say
from tests.benchmarks.expiries import watch
from tests.benchmarks.figures import Plan
from tests.benchmarks.flood import READ_BYTES, Lane, flood, in_chunks
from tests.benchmarks.peer import SHORT_TTL, TTL, free_port, program, running

PROGRAMS: Final = ("redis-server", "valkey-server")
CONNECTIONS: Final = 16
PIPELINE: Final = 64
GREETING_SECONDS: Final = 1.0
KEY: Final = b"worker:"
_OK: Final = b"+OK\r\n"


class RedisServer(EmbeddedServer):
    """A Redis, or a Valkey, in `folder`, reachable from this machine only."""

    name = "redis-server"

    def __init__(self, folder: Path, hz: int) -> None:
        super().__init__(folder, None)
        self._hz: Final = hz

    async def _prepare(self, claim: FolderClaim) -> None:
        pass

    def _choose_port(self) -> int:
        return free_port()

    def _launch(self, claim: FolderClaim, port: int) -> ServerProcess:
        found = program(*PROGRAMS)
        if found is None:
            raise EmbeddedError("no redis-server program found")
        settings = {
            "port": str(port), "bind": HOST, "dir": str(self.folder), "save": "", "appendonly": "no",
            "notify-keyspace-events": "Ex", "hz": str(self._hz),
        }  # fmt: skip
        command: list[str | Path] = [found]
        for name, value in settings.items():
            command += [f"--{name}", value]
        return ServerProcess(
            command,
            log=self.folder / "redis.log",
            claim=claim,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
        )

    async def _answers(self, process: ServerProcess, port: int) -> int | None:
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, port)
                try:
                    writer.write(b"INFO server\r\n")
                    answer = await reader.readuntil(b"process_id:")
                    number = await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return None
        # Another server on that port does not count.
        return port if answer.startswith(b"$") and int(number) == process.pid else None


class Redis:
    """The peer. `hz` is how often a second it looks for keys whose time is up."""

    def __init__(self, hz: int = 10) -> None:
        self._hz = hz

    @property
    def name(self) -> str:
        """As the table names it."""
        return "Redis" if self._hz == 10 else f"Redis, hz {self._hz}"

    def missing(self) -> str | None:
        """Say what has to be installed for it, or None."""
        return None if program(*PROGRAMS) else "no redis-server on the PATH: Debian's package redis-server"

    async def rate(self, plan: Plan) -> float:
        """Start it, and return how many heartbeats a second it has taken, flat out."""
        async with running(lambda folder: RedisServer(folder, self._hz)) as server:
            return float(await run(__name__, "rate", server.port, plan.pick(100_000, 10_000), plan.pick(5, 2)))

    async def lateness(self, plan: Plan) -> list[float]:
        """Start it, and return how long after the ttl each end was seen, seconds. It has nothing else to do."""
        async with running(lambda folder: RedisServer(folder, self._hz)) as server:
            said = await run(__name__, "ends", server.port, plan.pick(400, 200), SHORT_TTL)
        assert not said["unseen"], said
        return list(said["late"])


class _Lane(Lane):
    def answered(self, data: bytes) -> int:
        # Cut anywhere, but nothing else comes.
        if b"-" in data:
            raise RuntimeError(f"Redis refuses: {data[:200]!r}")
        return data.count(b"\n")


def beat(worker: int, ttl: int) -> bytes:
    """Return one heartbeat as its protocol has it."""
    words = (b"SET", b"%b%d" % (KEY, worker), b"1", b"EX", b"%d" % ttl)
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def _rate(port: int, workers: int, seconds: float) -> None:
    lanes = [_Lane(port, per_chunk=PIPELINE, depth=2) for _ in range(CONNECTIONS)]
    for number, lane in enumerate(lanes):
        lane.chunks = in_chunks([beat(worker, TTL) for worker in range(number, workers, len(lanes))], PIPELINE)
    say(flood(lanes, seconds))


def _ends(port: int, count: int, ttl: int) -> None:
    ears = socket.create_connection((HOST, port))
    ears.sendall(b"SUBSCRIBE __keyevent@0__:expired\r\n")
    ears.recv(READ_BYTES)
    mouth = socket.create_connection((HOST, port))

    def one(key: int) -> float:
        sent = time.monotonic()
        mouth.sendall(beat(key, ttl))
        answer = mouth.recv(READ_BYTES)
        assert answer == _OK, answer
        return sent

    watch(count, ttl, one, _expired(ears))


def _expired(ears: socket.socket) -> Iterator[int]:
    rest = b""
    while data := ears.recv(READ_BYTES):
        *lines, rest = (rest + data).split(b"\r\n")
        yield from (int(line[len(KEY) :]) for line in lines if line.startswith(KEY))


if __name__ == "__main__":
    if sys.argv[1] == "rate":
        _rate(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    else:
        _ends(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
