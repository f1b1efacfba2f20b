"""The stage: a nats-server, the whole service, a thousand workers that beat, and one client that means harm."""

import asyncio
import json
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from unittest import mock

import asyncpg
import msgspec

from liveness.bus import Bus, Sink
from liveness.link import RunSink
from liveness.publishing import Event
from liveness.service import Service
from liveness.settings import Settings
from tests.fuzz.sender import HEARD, MARK

WORKERS: Final = 1000
# In batches of the hostile client. Two keep the service busy; what is ahead delays the echo, and ten delayed it beyond
# `max_gap` on a machine that hears fewer than 4,000 frames a second: rightly a gap, which is for a flood to try out.
AHEAD: Final = 2
SOON: Final = 60.0
# Between two questions, and two events, that tell the hostile client where the service's inboxes are.
TELL_SECONDS: Final = 0.02
# The service gives a connection up when it has not heard itself for two seconds.
GAP_SECONDS: Final = 2.0
_ROOT: Final = Path(__file__).parents[2]
_GOOD: Final = "liveness.heartbeat.good-"
_OWN: Final = "liveness.heartbeat.$liveness"
_MARK: Final = MARK.decode()
_API: Final = "liveness.api."


class Report(msgspec.Struct):
    """What a run has shown. `faults` are the bus's; times are in seconds."""

    seed: int
    flood: bool
    confirmed: int
    for_sinks: int
    ended_by_server: int
    seconds: float
    delivered: int
    beats: int
    beats_heard: int
    lapses: int
    links: int
    faults: dict[str, int]
    gaps: int
    longest_silence: float
    longest_stall: float
    answers: int
    counts: dict[str, int]

    @property
    def violations(self) -> list[str]:
        """What should not be, a line each."""
        found = []
        if self.links != 1 or any(
            self.faults.get(kind) for kind in ("lost", "half_open", "malformed", "deaf", "refused")
        ):
            found.append(f"the link ended: {self.links} links, {self.faults}")
        if self.faults.get("sink_raised") or self.faults.get("callback_raised"):
            found.append(f"something raised: {self.faults}")
        if self.beats_heard != self.beats:
            found.append(f"{self.beats} good beats were sent and {self.beats_heard} heard")
        if self.delivered < self.for_sinks:
            found.append(f"{self.for_sinks} frames were confirmed and {self.delivered} delivered")
        if self.lapses:
            found.append(f"{self.lapses} leases of workers that beat lapsed")
        if self.longest_silence > GAP_SECONDS and not self.flood:
            found.append(f"hearing stood still for {self.longest_silence:.2f} s")
        return found


class Tap:
    """Counts what comes to the sinks of a bus."""

    def __init__(self) -> None:
        self.hostile = 0
        self.good: Counter[str] = Counter()
        self.ups = 0

    def subscribe(
        self, bus: Bus, subject: str, sink: Sink, run: RunSink | None = None, *, optional: bool = False
    ) -> None:
        """Subscribe in the place of `Bus.subscribe`."""
        prefix = subject.removesuffix(">")

        def tapped(subject: str, payload: bytes, reply: str) -> None:
            if subject == _MARK:
                bus.send(HEARD.decode(), payload)
            else:
                self._count(subject, payload)
            sink(subject, payload, reply)

        def tapped_run(beats: Iterator[re.Match[bytes]]) -> int:
            seen = []

            def passing() -> Iterator[re.Match[bytes]]:
                for beat in beats:
                    seen.append(beat)
                    yield beat

            end = 0 if run is None else run(passing())
            for beat in seen:
                if beat.end() <= end:
                    self._count(prefix + beat[1].decode(), beat[3])
            return end

        _subscribe(bus, subject, tapped, None if run is None else tapped_run, optional=optional)

    def _count(self, subject: str, payload: bytes) -> None:
        if subject.startswith(_GOOD) and payload.startswith(b'{"incarnation": "good"'):
            self.good[subject.removeprefix(_GOOD)] += 1
        elif not subject.startswith((_OWN, _API)):
            self.hostile += 1


_subscribe: Final = Bus.subscribe


class Watch:
    """Looks at the clocks of the service, and gives the hostile client something to read."""

    def __init__(self, service: Service) -> None:
        self.longest_silence = self.longest_stall = 0.0
        self.answers = 0
        self._service = service
        self._proven = -1.0
        self._since = time.monotonic()

    async def keep(self) -> None:
        """Watch, for ever."""
        bus, parts, number = self._service._bus, self._service.parts, 0
        assert parts is not None
        while True:
            before = time.monotonic()
            await asyncio.sleep(TELL_SECONDS)
            now = time.monotonic()
            self.longest_stall = max(self.longest_stall, now - before - TELL_SECONDS)
            if parts.hearing.now != self._proven:
                self._proven, self._since = parts.hearing.now, now
            self.longest_silence = max(self.longest_silence, now - self._since)
            number += 1
            bus.ask(f"liveness.probe.w-{number % 100}", b"", self._answered, 1.0)
            bus.send("workflow.reclaimed", b"{}") if number % 50 else None

    def _answered(self, _payload: bytes | None) -> None:
        self.answers += 1


async def perform(settings: Settings, frames: int, seed: int, workers: int = WORKERS, *, flood: bool = False) -> Report:
    """Run the service against `frames` hostile frames, with a nats-server and a Postgres that stand.

    In a `flood` they come as fast as the server takes them, which is faster than the service hears; then its clock
    stands still, as it should. Otherwise the hostile client waits for it.
    """
    tap = Tap()
    port = int(settings.nats_url.rpartition(":")[2])
    with mock.patch.object(Bus, "subscribe", lambda bus, *words, **more: tap.subscribe(bus, *words, **more)):  # noqa: PLW0108 - a bound method would not get the bus
        service = Service(settings)
        stop = asyncio.Event()
        running = asyncio.create_task(service.run(stop))
        starting = asyncio.create_task(service.started.wait())
        await asyncio.wait({running, starting}, return_when=asyncio.FIRST_COMPLETED)
    try:
        assert service.started.is_set()
        return await _perform(service, tap, port, (frames, seed, 0 if flood else AHEAD), workers)
    finally:
        stop.set()
        await running


async def _perform(service: Service, tap: Tap, port: int, hostile: tuple[int, int, int], workers: int) -> Report:
    bus, parts = service._bus, service.parts
    assert parts is not None
    link, gaps = bus._link, parts.hearing.gaps
    ups, on_up = [], bus.on_up

    def up() -> None:
        ups.append(1)
        on_up()

    bus.on_up = up
    watch = Watch(service)
    async with _process("fleet", port, workers) as fleet:
        await _until(lambda: len(tap.good) == workers)
        watching = asyncio.create_task(watch.keep())
        async with _process("sender", port, *hostile) as sender:
            sent = json.loads((await sender.communicate())[0])
        beats = json.loads((await fleet.communicate(b""))[0])
        # The last of them wait behind the last of the hostile ones.
        await _until(lambda: tap.good.total() == sum(beats) or bus._link is not link)
        watching.cancel()
    event = Event(id="after", subject="workflow.reclaimed", payload=b"{}")
    acknowledged, complaint = await bus.publish_events(parts.settings.events_stream, [event])
    assert acknowledged == [0], complaint
    connection = await asyncpg.connect(parts.settings.postgres_dsn)
    lapses = await connection.fetchval("SELECT count(*) FROM liveness.expiration WHERE worker LIKE 'good-%'")
    await connection.close()
    return Report(
        seed=hostile[1],
        flood=hostile[2] == 0,
        confirmed=sent["confirmed"],
        for_sinks=sent["for_sinks"],
        ended_by_server=sent["ended"],
        seconds=sent["seconds"],
        delivered=tap.hostile,
        beats=sum(beats),
        beats_heard=sum(min(tap.good[str(worker)], count) for worker, count in enumerate(beats)),
        lapses=lapses,
        links=1 + len(ups),
        faults=dict(bus.faults),
        gaps=parts.hearing.gaps - gaps,
        longest_silence=watch.longest_silence,
        longest_stall=watch.longest_stall,
        answers=watch.answers,
        counts=dict(parts.intake.counts),
    )


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON):
        while not holds():  # noqa: ASYNC110 - what it waits for is counted in several places
            await asyncio.sleep(TELL_SECONDS)


@asynccontextmanager
async def _process(module: str, *words: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.fuzz.{module}",
        *map(str, words),
        cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
