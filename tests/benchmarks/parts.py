"""The parts of a service as `assembly` connects them, without servers, and a book full of workers that it has heard."""

from collections.abc import Iterable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Final, cast

import structlog

from liveness.assembly import Assembly
from liveness.bus import Bus
from liveness.messages import SHORT
from liveness.settings import Settings
from liveness.store import Store
from liveness.wire import Incoming, run_of

SID: Final = 1
# Seconds: longer than any benchmark takes, so that nobody is due.
TTL: Final = 3_600.0
# The id of a NATS server, as workers state it.
VIA: Final = "N" * 56
# Postgres issues at least the milliseconds since 1970.
FIRST_EPOCH: Final = 1_750_000_000_000
# Of those that were heard first, as many as Postgres is told of at once.
TOLD_AT_ONCE: Final = 1_000


def name(worker: int) -> str:
    """Return the name of a worker, as long as Kubernetes would make it."""
    return f"worker-5d8c7b9f6d-{worker:05x}"


def beat(worker: int, seq: int, *, full: bool = True) -> bytes:
    """Return what a NATS server sends of a heartbeat: as `Heartbeater` says it, or as a script does (40 bytes)."""
    if full:
        said = (
            b'{"incarnation":"%032x","seq":%d,"ttl":3600.0,"interval":720.0,"uptime":%d.123,"probe":true,"via":"%b"}'
            % (worker, 1_000 + seq, 1_000 + seq, VIA.encode())
        )
    else:
        said = b'{"seq":%d,"ttl":3600.0,"uptime":%d.5}' % (10_000 + seq, 1_000 + seq)
    return b"MSG liveness.heartbeat.%b %d %d\r\n%b\r\n" % (name(worker).encode(), SID, len(said), said)


class Parts:
    """A service that hears by `read`, and by no socket. It acts, and its Postgres is never asked."""

    def __init__(self) -> None:
        # A million lines of a log say nothing of the service's memory or time.
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        unasked = cast("Store", SimpleNamespace(leader=None))
        # Nobody connects this bus.
        self.assembly = Assembly(Settings(), unasked, Bus("nats://127.0.0.1:4222"))
        self.assembly.leadership.leading = True
        self.book = self.assembly.book
        self.long = 0
        self._incoming = Incoming()
        pattern, take = run_of(self.assembly.subjects.all_heartbeats, SID, SHORT), self.assembly.renewals.take
        # As a link has it.
        self._incoming.run = lambda data, at: take(iter(pattern.scanner(data, at).match, None)) or at  # type: ignore[attr-defined]
        self.assembly.listening.up()

    def read(self, data: bytes) -> None:
        """Take what came off the socket at once; `long` counts what went the long way."""
        for _, subject, reply, _, payload in self._incoming.read(data):
            self.long += 1
            self.assembly.intake.heartbeat(str(subject, "utf-8"), payload, str(reply, "utf-8"))

    def echo(self) -> None:
        """Hear ourselves, at once: hearing time moves."""
        token, now = b"%x" % id(self), self.assembly.clock()
        self.assembly.hearing.sent(token, now)
        self.assembly.listening.hear(token)

    def fill(self, workers: int, *, full: bool = True) -> None:
        """Restore so many workers that have their epochs, and hear each: each beat in a read of its own.

        So each lease has numbers of its own for when it was heard, which those of one read share: no lease needs more.
        """
        restore, now = self.book.restore, self.assembly.hearing.now
        for worker in range(workers):
            restore(name(worker), now, TTL, FIRST_EPOCH + worker, f"{worker:032x}" if full else None)
        for some in _pieces(range(workers), TOLD_AT_ONCE):
            for worker in some:
                self.read(beat(worker, 0, full=full))
            # Postgres was told: nothing else is to be done of what changed.
            self.book.changed.clear()
        assert len(self.book) == workers
        assert all(lease.group is not None and lease.epoch and not lease.ending for lease in self.book)


def _pieces(workers: Iterable[int], size: int) -> Iterator[list[int]]:
    left = iter(workers)
    while piece := list(islice(left, size)):
        yield piece
