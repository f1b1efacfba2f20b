"""etcd: a heartbeat is a lease's keep-alive, and the end of a lease is the DELETE of a key attached to it, by a watch.

Settings, after its manual: the defaults, which "should work well for installations on a local network" (heartbeat 100
ms, election timeout 1,000 ms), in a data folder of its own, one member, fsync as it comes. A lease then lasts 2 s at
least. Keep-alives do not go through its log, and are answered from memory. Each has a message of its own, as the
protocol has it; 8 connections with a stream each, 256 keep-alives under way on every one. An etcd client has one such
stream, and asks for a lease three times in its ttl.

As a program it is the load: `python -m tests.benchmarks.peers_etcd rate PORT LEASES SECONDS`, which says how many
keep-alives were answered a second, or `... ends PORT COUNT TTL`, which says what `expiries.watch` says.
"""

import asyncio
import importlib.util
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from liveness.embedded.claim import FolderClaim
from liveness.embedded.process import ServerProcess
from liveness.embedded.server import HOST, EmbeddedServer
from liveness.errors import EmbeddedError
from tests.benchmarks.child import run, say
from tests.benchmarks.expiries import watch
from tests.benchmarks.figures import Plan
from tests.benchmarks.flood import READ_BYTES, Lane, flood, in_chunks
from tests.benchmarks.http2 import Frames, message, opening
from tests.benchmarks.peer import SHORT_TTL, free_port, program, running
from tests.benchmarks.protobuf import field, fields

CONNECTIONS: Final = 8
CHUNK: Final = 128
# Longer than the benchmark: nothing ends meanwhile.
LONG_TTL: Final = 3_600
GRANTS_AT_ONCE: Final = 500
GREETING_SECONDS: Final = 1.0
# Numbers of which all take the same bytes.
FIRST_LEASE: Final = 1 << 40
KEY: Final = b"worker/"
_GRANT: Final = "/etcdserverpb.Lease/LeaseGrant"
_KEEP_ALIVE: Final = "/etcdserverpb.Lease/LeaseKeepAlive"
_PUT: Final = "/etcdserverpb.KV/Put"
_WATCH: Final = "/etcdserverpb.Watch/Watch"
# Fields of its messages.
_RESPONSE_EVENTS: Final = 11
_EVENT_TYPE: Final = 1
_EVENT_KEY_VALUE: Final = 2
_DELETE: Final = 1


class EtcdServer(EmbeddedServer):
    """An etcd of one member in `folder`, reachable from this machine only."""

    name = "etcd"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, None)

    async def _prepare(self, claim: FolderClaim) -> None:
        pass

    def _choose_port(self) -> int:
        return free_port()

    def _launch(self, claim: FolderClaim, port: int) -> ServerProcess:
        found = program("etcd")
        if found is None:
            raise EmbeddedError("no etcd program found")
        clients, peers = f"http://{HOST}:{port}", f"http://{HOST}:{free_port()}"
        command: list[str | Path] = [
            found, "--data-dir", self.folder / "data", "--log-level", "error",
            "--listen-client-urls", clients, "--advertise-client-urls", clients,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", f"default={peers}",
        ]  # fmt: skip
        return ServerProcess(
            command,
            log=self.folder / "etcd.log",
            claim=claim,
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
        )

    async def _answers(self, process: ServerProcess, port: int) -> int | None:
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                reader, writer = await asyncio.open_connection(HOST, port)
                try:
                    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
                    answer = await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return None
        return port if b'"health":"true"' in answer and process.exit_code is None else None


class Etcd:
    """The peer."""

    name = "etcd"

    def missing(self) -> str | None:
        """Say what has to be installed for it, or None."""
        if program("etcd") is None:
            return "no etcd on the PATH: Debian's package etcd-server"
        if importlib.util.find_spec("grpc") is None:
            return "no grpcio: pip install 'liveness[bench]'"
        return None

    async def rate(self, plan: Plan) -> float:
        """Start it, and return how many keep-alives a second it has answered, flat out."""
        async with running(EtcdServer) as server:
            # Fewer leases than we have: each is granted by a write to its log. It finds them by a hash.
            return float(await run(__name__, "rate", server.port, plan.pick(10_000, 2_000), plan.pick(5, 2)))

    async def lateness(self, plan: Plan) -> list[float]:
        """Start it, and return how long after the ttl each DELETE was seen, seconds. It has nothing else to do."""
        async with running(EtcdServer) as server:
            said = await run(__name__, "ends", server.port, plan.pick(400, 200), SHORT_TTL)
        assert not said["unseen"], said
        return list(said["late"])


class _Lane(Lane):
    """A connection with a stream of keep-alives."""

    def __init__(self, port: int, leases: Sequence[int], *, per_chunk: int = CHUNK, depth: int = 2) -> None:
        super().__init__(port, per_chunk=per_chunk, depth=depth)
        self._frames = Frames()
        self.connection.sendall(opening(_KEEP_ALIVE, f"{HOST}:{port}"))
        self.chunks = in_chunks([message(field(1, lease)) for lease in leases], per_chunk)

    def answered(self, data: bytes) -> int:
        messages, answer = self._frames.take(data)
        if answer:
            self.connection.sendall(answer)
        return len(messages)


class _Control:
    """What is rare, by grpcio: leases are granted, keys put, and the watch stands. Nothing of it is counted."""

    def __init__(self, port: int) -> None:
        import grpc  # noqa: PLC0415 - where it is missing, this file still has to say so

        self._channel: Any = grpc.insecure_channel(f"{HOST}:{port}")

    def all_of(self, method: str, requests: Sequence[bytes]) -> None:
        """Call a method for each of `requests`, many at once."""
        call = self._channel.unary_unary(method)
        for start in range(0, len(requests), GRANTS_AT_ONCE):
            for waiting in [call.future(request) for request in requests[start : start + GRANTS_AT_ONCE]]:
                waiting.result()

    def grant(self, leases: Sequence[int], ttl: int) -> None:
        """Grant leases of these numbers."""
        self.all_of(_GRANT, [field(1, ttl) + field(2, lease) for lease in leases])

    def deleted(self) -> Iterator[bytes]:
        """Go through the keys under `KEY` that are deleted from now on; returns when the watch stands."""
        create = field(1, KEY) + field(2, KEY[:-1] + bytes((KEY[-1] + 1,)))
        responses = self._channel.stream_stream(_WATCH)(iter([field(1, create)]))
        # The first one says that it stands.
        next(responses)
        return (key for response in responses for key in _deletes(response))


def _deletes(response: bytes) -> Iterator[bytes]:
    for number, event in fields(response):
        if number == _RESPONSE_EVENTS:
            parts = dict(fields(_bytes(event)))
            if parts.get(_EVENT_TYPE) == _DELETE:
                yield _bytes(dict(fields(_bytes(parts[_EVENT_KEY_VALUE])))[1])


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value


def _rate(port: int, leases: int, seconds: float) -> None:
    numbers = [FIRST_LEASE + lease for lease in range(leases)]
    _Control(port).grant(numbers, LONG_TTL)
    say(flood([_Lane(port, numbers[start::CONNECTIONS]) for start in range(CONNECTIONS)], seconds))


def _ends(port: int, count: int, ttl: int) -> None:
    control = _Control(port)
    ends = (int(key[len(KEY) :]) for key in control.deleted())
    numbers = [FIRST_LEASE + key for key in range(count)]
    lane = _Lane(port, numbers, per_chunk=1, depth=1)

    def one(key: int) -> float:
        # A lease that waited for its turn would have ended; a grant is written to the log, and is not what is timed.
        control.grant([numbers[key]], ttl)
        control.all_of(_PUT, [field(1, KEY + b"%d" % key) + field(2, b"1") + field(3, numbers[key])])
        sent = time.monotonic()
        lane.connection.sendall(lane.chunks[key])
        while not lane.answered(lane.connection.recv(READ_BYTES)):
            pass
        return sent

    watch(count, ttl, one, ends)


if __name__ == "__main__":
    if sys.argv[1] == "rate":
        _rate(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    else:
        _ends(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
