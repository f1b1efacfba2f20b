"""The parts of the service and who tells whom: the one place where they are connected.

The running service uses it, and so do the commands that have to act when no service runs.
"""

import contextlib
import functools
import time
from collections.abc import Callable
from random import SystemRandom

import structlog

from liveness.admission import Admission
from liveness.advisories import Advisories
from liveness.backlog import Backlog
from liveness.bounds import Bounds
from liveness.bus import Bus
from liveness.checkpoint import Checkpoint
from liveness.comparing import Comparing
from liveness.doubting import Doubting
from liveness.errors import CannotStartError, StreamAwayError
from liveness.eventstream import event_subjects
from liveness.expiry import Expiry
from liveness.finish import Finish
from liveness.follow import Follow
from liveness.forgetting import Forgetting
from liveness.grants import Grants
from liveness.greetings import Greetings
from liveness.hearing import Hearing
from liveness.intake import Intake
from liveness.leadership import Leadership
from liveness.leases import LeaseTable
from liveness.listening import Listening
from liveness.pausing import PAUSE_SECONDS, Pausing
from liveness.probes import Probes
from liveness.refused import Refused
from liveness.relay import Relay
from liveness.renewals import Renewals
from liveness.reports import Reports
from liveness.restore import restore
from liveness.rounds import Away, Round
from liveness.settings import Settings
from liveness.store import Store, read_pause
from liveness.storms import Storms
from liveness.suspects import Suspects
from liveness.sweep import Sweep
from liveness.wakes import Wakes

log = structlog.get_logger("liveness.assembly")

# The longest time between two looks at the book. Usually the next deadline comes first; a lease that begins and lapses
# in between is found so much late at worst.
LOOK_SECONDS = 0.25
# Between two rounds of grants and greetings that nothing has woken: for what an outage left undone.
GRANT_SECONDS = 1.0
# Between two looks for reclaims that are not finished, when there were some and when there were none.
UNFINISHED_SECONDS, FINISHED_SECONDS = 1.0, 5.0
# Between two looks for rows that their tables refused and that are to be tried again.
REFUSED_SECONDS = 5.0
# Between two looks into the outbox; NOTIFY usually comes first, but polling is the truth.
OUTBOX_SECONDS = 0.5
# Between two questions how much is left in it, while anything is.
BACKLOG_SECONDS = 5.0
# Between two looks for workers that live and are not well.
DOUBT_SECONDS = 0.5
# Between two looks at which bounds are hit, and who has to come in all the same.
BOUNDS_SECONDS = 1.0
# Between two looks of a follower at what the leader has done.
FOLLOW_SECONDS = 2.0
# An answer to a probe that comes later than this is not waited for; a beat it is not, but the next one will be.
PROBE_SECONDS = 5.0


class Assembly:
    """All parts of one service, connected and not yet moving."""

    def __init__(self, settings: Settings, store: Store, bus: Bus) -> None:
        self.settings = settings
        self.store = store
        self.bus = bus
        self.clock = time.monotonic
        self.began = self.clock()
        self.subjects = settings.subjects

        # What is believed, and how far it may be.
        self.book = LeaseTable(settings.heartbeat_timeout)
        self.hearing = Hearing(self.clock(), max_gap=settings.max_gap, gap_grace=settings.gap_grace)
        self.storms = Storms(max_hold=settings.storm_max_hold, shuffle=SystemRandom().shuffle)
        # A beat is noted up to twice max_gap too late, so less is no silence.
        self.suspects = Suspects(book=self.book, storms=self.storms, least=2 * settings.max_gap)
        self.reports = Reports(leak_grace=settings.leak_grace, wedge_after=settings.wedge_after)

        self.admission = Admission(max_workers=settings.max_workers, max_grants=settings.max_grants)
        self.wakes = Wakes()
        self._look_at = 0.0
        self._finish_seconds = FINISHED_SECONDS

        self._make_the_way_in()
        self._make_the_way_out()
        self._make_the_replica()
        self._make_the_doubts()
        self._make_the_pause()
        self.away = Away()
        self.rounds = self._rounds()
        self._connect()

    def _make_the_way_in(self) -> None:
        book, hearing, storms, settings = self.book, self.hearing, self.storms, self.settings
        self.listening = Listening(
            hearing=hearing,
            lines=book.lines,
            settings=settings,
            clock=self.clock,
            send=self.bus.send,
            give_up=self.bus.give_up,
            on_time=self._look,
            on_loss=self._listen_anew,
        )
        self.intake = Intake(
            book=book,
            hearing=hearing,
            storms=storms,
            settings=settings,
            clock=self.clock,
            on_echo=self.listening.hear,
            wakes=self.wakes,
            tell=self._tell,
        )
        self.intake.admission = self.admission
        self.intake.reports = self.reports
        self.bounds = Bounds(
            admission=self.admission,
            book=book,
            hearing=hearing,
            counts=self.intake.counts,
            reports=self.reports,
            store=self.store,
            settings=settings,
            clock=self.clock,
        )
        self.renewals = Renewals(
            book=book,
            hearing=hearing,
            settings=settings,
            clock=self.clock,
            counts=self.intake.counts,
            reports=self.reports,
        )
        self.grants = Grants(
            book=book, hearing=hearing, store=self.store, settings=settings, publish=self.bus.publish, clock=self.clock
        )
        self.greetings = Greetings(
            book=book,
            hearing=hearing,
            intake=self.intake,
            store=self.store,
            answer=self.bus.answer,
            clock=self.clock,
            leading=lambda: self.leadership.leading,
            wakes=self.wakes,
        )

    def _make_the_way_out(self) -> None:
        book, hearing, storms, settings, store = self.book, self.hearing, self.storms, self.settings, self.store
        probes = Probes(
            book=book,
            ask=lambda worker, on_answer: self.bus.ask(self.subjects.probe(worker), b"", on_answer, PROBE_SECONDS),
            on_answer=self.intake.probe_answer,
            on_failure=self.suspects.probe_failed,
        )
        self.expiry = Expiry(
            book=book,
            hearing=hearing,
            storms=storms,
            probes=probes,
            store=store,
            clock=self.clock,
            wakes=self.wakes,
            chunk=settings.reclaim_chunk,
        )
        self.finish = Finish(store, self.clock)
        self.refused = Refused(store)
        self.sweep = Sweep(
            book=book,
            hearing=hearing,
            storms=storms,
            store=store,
            settings=settings,
            clock=self.clock,
            admission=self.admission,
        )
        store.leader.on_seen = self.sweep.reach.seen
        self.checkpoint = Checkpoint(
            book=book, hearing=hearing, store=store, clock=self.clock, every=settings.checkpoint_interval
        )
        self.relay = Relay(
            store=store,
            settings=settings,
            publish=lambda events: self.bus.publish_events(settings.events_stream, events),
            urgent=lambda: self.expiry.more or self.finish.more or self.sweep.more,
            clock=self.clock,
        )
        self.backlog = Backlog(relay=self.relay, store=store, clock=self.clock)

    def _make_the_replica(self) -> None:
        self.follow = Follow(
            book=self.book,
            hearing=self.hearing,
            store=self.store,
            default_ttl=self.settings.heartbeat_timeout,
            clock=self.clock,
        )
        self.leadership = Leadership(
            leader=self.store.leader,
            timeout=self.settings.leader_timeout,
            catch_up=self.follow.catch_up,
            hears=lambda: not self.hearing.deaf(self.clock()),
            on_take=self._take_over,
            on_lead=self._wake_all,
        )

    def _make_the_doubts(self) -> None:
        url, access = self.settings.nats_system_url, self.settings.nats_system_access
        self.advisories = Advisories(url, self.suspects.disconnected, access) if url else None
        self.doubting = Doubting(
            book=self.book,
            hearing=self.hearing,
            suspects=self.suspects,
            reports=self.reports,
            store=self.store,
            settings=self.settings,
            clock=self.clock,
            leading=lambda: self.leadership.leading,
        )
        self.comparing = Comparing(
            book=self.book,
            hearing=self.hearing,
            reports=self.reports,
            store=self.store,
            settings=self.settings,
            clock=self.clock,
            counts=self.intake.counts,
            leading=lambda: self.leadership.leading,
        )

    def _make_the_pause(self) -> None:
        self.pausing = Pausing(
            read=lambda: read_pause(self.store.database),
            running=self.store.host.running,
            book=self.book,
            hearing=self.hearing,
            storms=self.storms,
            clock=self.clock,
            leading=lambda: self.leadership.leading,
        )
        self.expiry.held_for = self.pausing.evidence
        self.expiry.paused = self.comparing.paused = self.doubting.paused = lambda: self.pausing.on

    def _rounds(self) -> list[Round]:
        """Return the duties, in the order in which a life meets them; most are the acting replica's."""
        settings = self.settings

        def leads() -> bool:
            return self.leadership.leading

        def takes() -> bool:
            return leads() and not self.pausing.on

        duty = functools.partial(Round, away=self.away)
        rounds = [
            duty("leadership", self.leadership.run_once, lambda: self.leadership.interval),
            duty("takeover", self.leadership.learn, lambda: FOLLOW_SECONDS, self.wakes.takeover),
            duty("follow", self.follow.run_once, lambda: FOLLOW_SECONDS, may_run=lambda: not leads()),
            duty("pausing", self.pausing.run_once, lambda: PAUSE_SECONDS),
            duty("grants", self._grant, lambda: GRANT_SECONDS, self.wakes.lives, leads),
            duty("greetings", self.greetings.run_once, lambda: GRANT_SECONDS, self.wakes.arrivals, leads),
            duty("expiry", self._expire, lambda: LOOK_SECONDS, self.wakes.endings, leads),
            duty("finish", self._finish, lambda: self._finish_seconds, self.wakes.rest, takes),
            duty("relay", self._relay, lambda: OUTBOX_SECONDS, self.wakes.news, leads),
            duty("backlog", self.backlog.run_once, lambda: BACKLOG_SECONDS, may_run=leads),
            duty("sweep", self._sweep, lambda: settings.stale_worker_check_interval, may_run=leads),
            # These look in every replica, and act in one.
            duty("doubting", self.doubting.run_once, lambda: DOUBT_SECONDS),
            duty("bounds", self.bounds.run_once, lambda: BOUNDS_SECONDS),
            duty("comparing", self.comparing.run_once, lambda: self.comparing.interval),
        ]
        if settings.retention:
            forgetting = Forgetting(store=self.store, waits=self._waits)
            rounds.append(duty("forgetting", forgetting.run_once, lambda: forgetting.interval, may_run=takes))
        # Mode observe touches nothing of the host's.
        if settings.mode == "act":
            rounds.append(duty("refused", self.refused.run_once, lambda: REFUSED_SECONDS, may_run=takes))
        if settings.checkpoint_interval and settings.mode == "act":
            rounds.append(duty("checkpoint", self.checkpoint.run_once, lambda: self.checkpoint.interval, may_run=leads))
        return rounds

    def _connect(self) -> None:
        bus, subjects = self.bus, self.subjects
        bus.subscribe(subjects.all_heartbeats, self.intake.heartbeat, self.renewals.take)
        # Where nobody is divided, hardly any come there, and an account may lack the right to listen.
        bus.subscribe(subjects.stray_heartbeats, self.intake.stray, optional=subjects.share is None)
        bus.subscribe(subjects.all_goodbyes, self.intake.goodbye)
        bus.subscribe(subjects.all_hellos, self.greetings.hello)
        bus.on_up, bus.on_down, bus.on_drop = self.listening.up, self.listening.down, self.listening.lost

    @property
    def owns(self) -> Callable[[str], bool] | None:
        """Whether a name is of our share; None where everybody is."""
        return None if self.subjects.share is None else self.subjects.owns

    async def ensure_stream(self) -> None:
        """Create or check the events' stream, and log what is doubtful. Raises CannotStartError, StreamAwayError."""
        settings = self.settings
        for doubt in await self.bus.ensure_stream(
            settings.events_stream, event_subjects(settings), settings.events_max_age, settings.events_max_bytes
        ):
            log.warning("stream_doubtful", doubt=f"{doubt.about} {doubt.says}", why=doubt.why, advice=doubt.fix)

    async def restore(self) -> None:
        """Bring into the book what Postgres knows of who lives. Raises DatabaseAwayError: to be done again."""
        await restore(
            book=self.book,
            hearing=self.hearing,
            storms=self.storms,
            store=self.store,
            default_ttl=self.settings.heartbeat_timeout,
            owns=self.owns,
        )

    def _waits(self) -> str:
        # What can only wait, as what a storm holds or Postgres refuses, is nothing that forgetting would hold up.
        expiry, grants, more = self.expiry, self.grants, self.finish.more or self.sweep.more
        due = {"verdicts": expiry.due or expiry.more, "epochs": grants.due, "rows": more, "events": self.relay.due}
        return ", ".join(what for what, is_due in due.items() if is_due)

    async def _grant(self) -> None:
        done = await self.grants.run_once()
        if self.book.endings:
            # A life that ended before it had its epoch can be settled now.
            self.wakes.endings.set()
        if done.granted:
            # Who said hello may have waited for this.
            self.wakes.arrivals.set()

    async def _expire(self) -> None:
        try:
            await self.expiry.run_once()
        finally:
            self._look_at = min(self.book.lines.next_deadline(), self.hearing.now + LOOK_SECONDS)

    async def _relay(self) -> None:
        if (await self.relay.run_once()).complaint is not None and self.bus.connected:
            # Perhaps somebody deleted the stream.
            with contextlib.suppress(CannotStartError, StreamAwayError):
                await self.ensure_stream()

    async def _sweep(self) -> None:
        # While somebody has paused, what it would have taken is what it found.
        self.sweep.last = await self.sweep.run_once(dry_run=self.pausing.on)
        self.pausing.note(self.sweep.last)

    async def _finish(self) -> None:
        finished = await self.finish.run_once()
        self._finish_seconds = UNFINISHED_SECONDS if finished.unfinished else FINISHED_SECONDS
        if finished.items:
            # And for this.
            self.wakes.arrivals.set()
            # And the news of it may have had to wait.
            self.wakes.news.set()

    def _look(self, now: float) -> None:
        if not self.leadership.leading:
            self.expiry.look(away=self.follow.away)
            self.storms.watch(self.book, now, away=self.follow.away)
        elif now >= self._look_at:
            self.wakes.endings.set()

    def _take_over(self) -> None:
        # What was found when we led before may be mended since.
        self.sweep.last = None
        if self.store.leader.after_others:
            # Who divided the workers otherwise has heard those whom we did not: from here on they are ours to hear.
            self.listening.lost()
        self.wakes.takeover.set()

    def _listen_anew(self, now: float) -> None:
        self.sweep.listening_since = now
        self.storms.lost(now)
        self.reports.lost()

    def _tell(self, subject: str, payload: bytes) -> None:
        # A follower knows it as well, and is silent.
        if self.leadership.leading:
            self.bus.send(subject, payload)

    def _wake_all(self) -> None:
        for duty in self.rounds:
            duty.wake()
