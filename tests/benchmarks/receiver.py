"""One who hears heartbeats, a process of its own: `python -m tests.benchmarks.receiver KIND PORT WORKERS BEAT`.

KIND is `bare` (nats-py with a callback that does nothing), `ours` (bus, echoes and book, as the service has them),
`long` (the same without the short way) or `uvloop` (ours, on that loop). BEAT is the kind of beats that will come.

Says {"ready": true}, and for each number on its standard input, once so many were heard since the one before (or a
minute has passed): {"heard", "cpu" (seconds, of this process), "seconds" (from the first to the last), "gaps",
"dropped", "lapses"}.
"""

import asyncio
import sys
import time
from importlib.util import find_spec
from typing import Any, Final

import nats
import structlog

from liveness.bus import Bus
from liveness.hearing import Hearing
from liveness.intake import Intake
from liveness.leases import LeaseTable
from liveness.listening import Listening
from liveness.renewals import Renewals
from liveness.reports import Reports
from liveness.settings import Settings
from liveness.storms import Storms
from liveness.wakes import Wakes
from tests.benchmarks.child import say
from tests.benchmarks.load import TTL

# How often the count is looked at, to know when the last one came.
LOOK_SECONDS: Final = 0.01
PATIENCE_SECONDS: Final = 60.0
# As the tables name it.
ON_UVLOOP: Final = "ours, on uvloop"


def missing_uvloop() -> str | None:
    """Say what has to be installed for uvloop, or None."""
    return None if find_spec("uvloop") else "pip install 'liveness[fast]'"


class Bare:
    """nats-py as its manual shows it, its queue long enough for all: by default it drops what it cannot hold."""

    gaps = lapses = 0

    def __init__(self) -> None:
        self.heard = self.dropped = 0

    async def open(self, url: str, _workers: int, _beat: str) -> None:
        """Subscribe."""

        async def heard(_message: Any) -> None:
            self.heard += 1

        async def complain(_error: Exception) -> None:
            self.dropped += 1

        client = await nats.connect(url, error_cb=complain)
        await client.subscribe("liveness.heartbeat.>", cb=heard, pending_msgs_limit=-1, pending_bytes_limit=-1)
        await client.flush()


class Ours:
    """The way in, as `assembly` makes it, without a database: every worker is known and has its epoch."""

    dropped = 0

    def __init__(self, *, short: bool) -> None:
        self.lapses = 0
        self._short = short
        clock, settings = time.monotonic, Settings()
        self._book = LeaseTable(settings.heartbeat_timeout)
        self._hearing = Hearing(clock(), max_gap=settings.max_gap, gap_grace=settings.gap_grace)
        self._storms = Storms(max_hold=0.0, shuffle=lambda _: None)
        self._intake = Intake(
            book=self._book, hearing=self._hearing, storms=self._storms, settings=settings, clock=clock, wakes=Wakes(),
            on_echo=lambda token: self._listening.hear(token),  # noqa: PLW0108 - it is not there yet
        )  # fmt: skip
        self._intake.reports = reports = Reports(leak_grace=settings.leak_grace, wedge_after=settings.wedge_after)
        self._renewals = Renewals(
            book=self._book, hearing=self._hearing, settings=settings, clock=clock, counts=self._intake.counts,
            reports=reports,
        )  # fmt: skip
        self._settings = settings

    @property
    def heard(self) -> int:
        """How many heartbeats were heard."""
        return self._intake.counts["heartbeats"]

    @property
    def gaps(self) -> int:
        """How often hearing stood still, the start left out."""
        return self._hearing.gaps - 1

    async def open(self, url: str, workers: int, beat: str) -> None:
        """Subscribe, and know all workers."""
        bus = Bus(url)
        self._listening = Listening(
            hearing=self._hearing, lines=self._book.lines, settings=self._settings, clock=time.monotonic,
            send=bus.send, give_up=bus.give_up, on_time=self._lapse, on_loss=lambda _: None,
        )  # fmt: skip
        for worker in range(workers):
            self._book.restore(f"worker-{worker}", 0.0, TTL, worker, f"{worker:032x}" if beat == "full" else None)
        bus.subscribe("liveness.heartbeat.>", self._intake.heartbeat, self._renewals.take if self._short else None)
        bus.on_up, bus.on_down = self._listening.up, self._listening.down
        await bus.connect()
        self._tasks = [asyncio.create_task(bus.keep()), asyncio.create_task(self._listening.keep())]

    def _lapse(self, now: float) -> None:
        self.lapses += len(self._book.lapse(now))


async def serve(receiver: Bare | Ours, url: str, workers: int, beat: str) -> None:
    """Hear, and say what was heard whenever a line comes in."""
    await receiver.open(url, workers, beat)
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    say({"ready": True})
    before = _counts(receiver)
    cpu = time.process_time()
    while line := await lines.readline():
        heard_at, until = await _wait(receiver, before["heard"] + int(line))
        now = _counts(receiver)
        said = {name: count - before[name] for name, count in now.items()}
        say({**said, "cpu": time.process_time() - cpu, "seconds": until - heard_at})
        before, cpu = now, time.process_time()


async def _wait(receiver: Bare | Ours, heard: int) -> tuple[float, float]:
    """Wait until so many were heard; return when the first came, and the last."""
    began = time.monotonic()
    first, least = began, receiver.heard
    while receiver.heard < heard and time.monotonic() < began + PATIENCE_SECONDS:
        if receiver.heard == least:
            first = time.monotonic()
        # Nobody tells when the last has come.
        await asyncio.sleep(LOOK_SECONDS)
    return first, time.monotonic()


def _counts(receiver: Bare | Ours) -> dict[str, int]:
    return {name: getattr(receiver, name) for name in ("heard", "gaps", "dropped", "lapses")}


def main(kind: str, port: int, workers: int, beat: str) -> None:
    """Run a receiver."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    receiver = Bare() if kind == "bare" else Ours(short=kind != "long")
    work = serve(receiver, f"nats://127.0.0.1:{port}", workers, beat)
    if kind == "uvloop":
        import uvloop  # noqa: PLC0415 - the others do without

        uvloop.run(work)
    else:
        asyncio.run(work)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
