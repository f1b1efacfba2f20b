"""The parts of the service and who tells whom: the one place where they are connected.

The running service uses it, and so do the commands that have to act when no service runs.
"""

import asyncio
import contextlib
import time

import structlog

from liveness.bus import Bus
from liveness.checkpoint import Checkpoint
from liveness.errors import CannotStartError
from liveness.expiry import Expiry
from liveness.finish import Finish
from liveness.grants import Grants
from liveness.hearing import Hearing
from liveness.intake import Intake
from liveness.leases import LeaseTable
from liveness.messages import EVENT_TYPES
from liveness.relay import Relay
from liveness.rounds import Round
from liveness.settings import Settings
from liveness.store import Store
from liveness.subjects import Subjects, event_subject
from liveness.sweep import Sweep

log = structlog.get_logger("liveness.assembly")

# The longest time between two looks at the book. Usually the next deadline comes first; a lease that begins and lapses
# in between is found so much late at worst.
LOOK_SECONDS = 0.25
# Between two rounds of grants that nothing has woken: for what an outage left undone.
GRANT_SECONDS = 1.0
# Between two looks for reclaims that are not finished, when there were some and when there were none.
UNFINISHED_SECONDS, FINISHED_SECONDS = 1.0, 5.0
# Between two looks into the outbox; NOTIFY usually comes first, but polling is the truth.
OUTBOX_SECONDS = 0.5


class Assembly:
    """All parts of one service, connected and not yet moving."""

    def __init__(self, settings: Settings, store: Store, bus: Bus) -> None:
        self.settings = settings
        self.store = store
        self.bus = bus
        self.clock = time.monotonic
        self.book = LeaseTable(settings.heartbeat_timeout)
        self.hearing = Hearing(self.clock())

        # Set by whoever makes work for a duty that should not wait for its interval.
        self._lives_wait, self._endings_wait, self._rest_waits = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.news_waits = asyncio.Event()

        self.grants = Grants(book=self.book, store=store, settings=settings, publish=bus.publish, clock=self.clock)
        self.expiry = Expiry(
            book=self.book,
            hearing=self.hearing,
            store=store,
            clock=self.clock,
            on_new_life=self._lives_wait.set,
            on_ended=self._rest_waits.set,
        )
        self.finish = Finish(store, self.clock)
        self.sweep = Sweep(book=self.book, hearing=self.hearing, store=store, settings=settings)
        self.checkpoint = Checkpoint(book=self.book, hearing=self.hearing, store=store, clock=self.clock)
        self.relay = Relay(
            store=store,
            settings=settings,
            publish=lambda events: bus.publish_events(settings.events_stream, events),
        )
        self.intake = Intake(
            book=self.book,
            hearing=self.hearing,
            settings=settings,
            clock=self.clock,
            on_new=self._lives_wait.set,
            on_ending=self._endings_wait.set,
        )

        self._rounds = [
            Round("grants", self._grant, lambda: GRANT_SECONDS, self._lives_wait),
            # Apart from the way out, which may be waiting for Postgres: time that nobody looks at does not count.
            Round("hearing", self._listen, lambda: LOOK_SECONDS),
            Round("expiry", self.expiry.run_once, self._until_next_look, self._endings_wait),
            Round("finish", self._finish, lambda: self._finish_seconds, self._rest_waits),
            Round("relay", self._relay, lambda: OUTBOX_SECONDS, self.news_waits),
            Round("sweep", self.sweep.run_once, lambda: settings.stale_worker_check_interval),
        ]
        # Mode observe touches nothing of the host's.
        if settings.checkpoint_interval and settings.mode == "act":
            self._rounds.append(Round("checkpoint", self.checkpoint.run_once, lambda: settings.checkpoint_interval))
        self._finish_seconds = FINISHED_SECONDS

        subjects = Subjects(settings.subject_prefix)
        bus.subscribe(subjects.all_heartbeats, self.intake.heartbeat)
        bus.subscribe(subjects.all_goodbyes, self.intake.goodbye)
        bus.on_up, bus.on_down, bus.on_drop = self._hear, self._hear_nothing, self._owe_everyone

    @property
    def rounds(self) -> list[Round]:
        """The duties of the acting replica, in the order in which a life meets them."""
        return self._rounds

    @property
    def event_subjects(self) -> list[str]:
        """Where this service publishes its events."""
        observed = self.settings.mode == "observe"
        return [event_subject(kind, self.settings.event_prefix, observed=observed) for kind in EVENT_TYPES]

    async def _listen(self) -> None:
        self.hearing.advance(self.clock())

    async def _grant(self) -> None:
        await self.grants.run_once()
        if self.book.endings:
            # A life that ended before it had its epoch can be settled now.
            self._endings_wait.set()

    async def ensure_stream(self) -> None:
        """Create or check the events' stream, and log what is doubtful. Raises CannotStartError."""
        settings = self.settings
        for doubt in await self.bus.ensure_stream(
            settings.events_stream, self.event_subjects, settings.events_max_age, settings.events_max_bytes
        ):
            log.warning("stream_doubtful", doubt=doubt)

    async def _relay(self) -> None:
        if (await self.relay.run_once()).complaint is not None and self.bus.connected:
            # Perhaps somebody deleted the stream.
            with contextlib.suppress(CannotStartError):
                await self.ensure_stream()

    async def _finish(self) -> None:
        finished = await self.finish.run_once()
        self._finish_seconds = UNFINISHED_SECONDS if finished.unfinished else FINISHED_SECONDS

    def _until_next_look(self) -> float:
        return min(max(self.book.next_deadline() - self.hearing.now, 0.001), LOOK_SECONDS)

    def _hear(self) -> None:
        self.hearing.start(self.clock())
        self._owe_everyone()

    def _hear_nothing(self) -> None:
        self.hearing.stop(self.clock())

    def _owe_everyone(self) -> None:
        # Beats may have been lost: nobody lapses, and the sweep takes nothing, before a full ttl of hearing from now.
        self.book.extend(self.hearing.now)
        self.sweep.listening_since = self.hearing.now
