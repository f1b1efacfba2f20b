"""The service, from start to stop.

    worker -- heartbeat --> NATS --> intake --> leases (memory)
                                                  | a lease lapses
                                                  v
       subscribers <-- workflow.reclaimed -- relay <-- outbox <-- reclaim (one SQL transaction)
                                                                    ^
                                     sweep (SQL: what memory never knew)

Read next: `assembly` (who tells whom), `intake` (the way in), `leases` (the book), `hearing` and `storms` (whether its
silence may be believed), `expiry` (the way out), `sql/end_epochs.sql` and `sql/reclaim_first.sql` (the verdict),
`relay` (the news), `sweep` (the fallback), `leadership` (which of several replicas acts).
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

import liveness
from liveness.api import Api
from liveness.assembly import Assembly
from liveness.bounded import finish_within
from liveness.bus import Bus
from liveness.errors import DatabaseAwayError, StreamAwayError
from liveness.health import Health
from liveness.http import Http
from liveness.metrics import Metrics
from liveness.page import Page
from liveness.rounds import failing
from liveness.settings import Settings
from liveness.share import least_server
from liveness.store import Database, Store
from liveness.systemd import Systemd
from liveness.trust import ADVICE, HTTP_ADVICE, HTTP_OPEN, ON_TRUST

log = structlog.get_logger("liveness.service")

Done = TypeVar("Done")

# How long a stop waits for what the duties have under way. Within the 5 s in which an orchestrator expects an end.
STOP_SECONDS = 1.5
# How long to try to hand the lead over; without it another replica takes it a leader_timeout later.
STEP_DOWN_SECONDS = 0.5
# How long what was cancelled may take to end.
CANCEL_SECONDS = 0.5
# What is said of a JetStream that does not answer at the start.
STREAM_AWAY = "work goes back all the same, and its events wait in the outbox"
STREAM_ADVICE = "look after JetStream there (nats server report jetstream), and whether our user may ask it"


class Service:
    """One replica. `run` does everything; `ready` is set while work that ends is put back."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError for a DSN that does not parse and CannotStartError for an HTTP address in use."""
        self.settings = settings
        self.started = asyncio.Event()
        self.parts: Assembly | None = None
        self._waiting_for: str | None = "starting"
        self._duties: list[asyncio.Task[None]] = []
        self._database = Database.of(settings, settings.lock_timeout)
        self._bus = Bus(
            settings.nats_url, access=settings.nats_access, least_server=least_server(settings.subjects.share)
        )
        self.health = Health(clock=time.monotonic, waits=self._waits, steps=self._database.steps)
        self._systemd = Systemd()
        self.metrics = Metrics(settings, lambda: self.parts, self.troubles)
        self.http = Http(
            settings.http_listen,
            troubles=self.troubles,
            ills=self.health.ills,
            notes=self.notes,
            metrics=self.metrics.text,
            token=settings.http_password,
            routes=Page(settings, lambda: self.parts, self.troubles).routes(),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises CannotStartError or SettingsError when it cannot start."""
        log.info(
            "starting",
            version=liveness.__version__,
            mode=self.settings.mode,
            http_port=self.http.port,
            event_loop=type(asyncio.get_running_loop()).__module__.partition(".")[0],
        )
        if self.settings.http_is_open:
            log.warning("http_open", cause=HTTP_OPEN, advice=HTTP_ADVICE)
        running = asyncio.create_task(self._run())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            self._systemd.stopping()
            await self._finish_duties()
            await self._step_down()
            # A transaction still under way is rolled back whole; whoever comes next does what it would have done.
            running.cancel()
            if not (await asyncio.wait({running}, timeout=CANCEL_SECONDS))[0]:
                # The driver waits for Postgres to confirm that it cancels; one that hangs never does.
                self._database.terminate()
                await asyncio.wait({running}, timeout=CANCEL_SECONDS)
            if self.parts is not None and self.parts.advisories is not None:
                await self.parts.advisories.close()
            await self._bus.close()
            await self._database.close()
            log.info("stopped")
        if running.done() and not running.cancelled() and (error := running.exception()) is not None:
            raise _first(error)

    def troubles(self) -> list[str]:
        """Return why the service is not ready, a line each; empty when it is."""
        if self._waiting_for is not None:
            return [self._waiting_for]
        found = [] if self._bus.connected else ["NATS: not connected, so nothing can be heard"]
        if self.parts is not None:
            if not found and self.parts.hearing.deaf(self.parts.clock()):
                found.append("NATS: connected, and nothing is heard, not even ourselves")
            if self.settings.shard and (strays := self.parts.intake.strays):
                found.append(strays)
            found += self.parts.storms.held(self.parts.hearing.now)
            found += failing(self.parts.rounds)
            found += [trouble] if (trouble := self.parts.store.leader.trouble) else []
        return found

    def notes(self) -> list[str]:
        """Return what everybody should know who looks, and is no trouble: a line while it is paused."""
        return [] if self.parts is None else self.parts.pausing.lines()

    def _status(self) -> str:
        """Return how the service is, in a line."""
        if troubles := self.troubles():
            return f"not ready: {'; '.join([*troubles, *self.notes()])}"
        if self.parts is None:
            return "starting"
        leads = "leads" if self.parts.leadership.leading else "follows"
        return "; ".join([f"{leads}, {len(self.parts.book)} leases", *self.notes()])

    def _waits(self) -> bool:
        return not self._bus.connected or (self.parts is not None and self.parts.away.goes_on)

    async def _finish_duties(self) -> None:
        self.health.stopping = True
        for duty in self.parts.rounds if self.parts is not None else []:
            duty.stop()
        if self._duties:
            await asyncio.wait(self._duties, timeout=STOP_SECONDS)

    async def _step_down(self) -> None:
        # Also who has taken the lead and not begun to: nobody else can lead meanwhile.
        if self.parts is not None:
            await finish_within(STEP_DOWN_SECONDS, self.parts.leadership.step_down())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.http.serve())
            tasks.create_task(self._systemd.keep(ready=self.started, status=self._status, ills=self.health.ills))
            parts = await self._start()
            lasting = {
                "bus": self._bus.keep(),
                "listening": parts.listening.keep(),
                "notices": parts.store.outbox.listen(parts.wakes.news.set),
            }
            if parts.advisories is not None:
                lasting["advisories"] = parts.advisories.keep()
            watched = [tasks.create_task(task, name=name) for name, task in lasting.items()]
            self._duties = [tasks.create_task(duty.keep(), name=duty.name) for duty in parts.rounds]
            self.health.watch(watched, zip(parts.rounds, self._duties, strict=True))
            self._waiting_for = None
            self.started.set()
            log.info("serving", leases=len(parts.book))

    async def _start(self) -> Assembly:
        await self._database.connect(self._told("Postgres"))
        store = await self._insist(lambda: Store.open(self._database, self.settings))
        self.parts = parts = Assembly(self.settings, store, self._bus)
        Api(parts, self.troubles)
        await self._insist(lambda: self._restore(parts))
        await self._bus.connect(self._told("NATS"))
        if self._bus.lets_anybody_in:
            log.warning("names_on_trust", cause=ON_TRUST, advice=ADVICE)
        await look_after_stream(parts)
        with contextlib.suppress(DatabaseAwayError):
            # Else its round does it.
            await parts.leadership.run_once()
            await parts.leadership.learn()
        return parts

    async def _restore(self, parts: Assembly) -> None:
        # First the lead, so that nobody else changes what is read; then everybody who may live, then the ears: a beat
        # always finds the lease that it renews.
        await parts.leadership.take()
        await parts.restore()

    async def _insist(self, step: Callable[[], Awaitable[Done]]) -> Done:
        return await self._database.insist(step, self._told("Postgres"))

    def _told(self, whom: str) -> Callable[[str], None]:
        def on_wait(cause: str) -> None:
            self._waiting_for = f"{whom}: {cause}"
            log.warning("waiting", waiting_for=whom, cause=cause)

        return on_wait


async def look_after_stream(parts: Assembly) -> None:
    """Make the events' stream, or say that it has to wait. Raises CannotStartError for what waiting does not mend."""
    try:
        await parts.ensure_stream()
    except StreamAwayError as error:
        # To put work back needs no JetStream. The relay makes the stream when it has something to tell.
        log.warning("stream_doubtful", doubt=str(error), why=STREAM_AWAY, advice=STREAM_ADVICE)


def _first(error: BaseException) -> BaseException:
    """Return the error itself rather than the group that the tasks wrapped it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
