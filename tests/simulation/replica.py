"""One replica: the real parts, wired as in `liveness.assembly`, and driven by virtual time.

Everything that decides is the real code: Hearing, Lines, LeaseTable, Incarnations, Storms, Listening, Intake,
Greetings, Grants, Probes, Expiry, Finish, Sweep, Relay, Follow, Leadership, Reports, Comparing and restore. What is
modelled is what surrounds them: the rounds (a duty runs when it is woken and has something to do, one at a time, and
waits after a failure), the loop's clock, and a process that can stand still or die.
"""

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from liveness.comparing import Comparing
from liveness.expiry import Expiry
from liveness.finish import Finish
from liveness.grants import Grants
from liveness.greetings import Greetings
from liveness.hearing import Hearing
from liveness.intake import Intake
from liveness.leadership import Leadership
from liveness.leases import LeaseTable
from liveness.listening import Listening
from liveness.probes import Probes
from liveness.publishing import Event
from liveness.relay import Relay
from liveness.reports import Reports
from liveness.restore import restore
from liveness.settings import Settings
from liveness.storms import Storms
from liveness.sweep import Sweep
from liveness.wakes import Wakes
from tests.simulation import idle
from tests.simulation.nats import Ear, Mouth, Nats, Server
from tests.simulation.postgres import Postgres
from tests.simulation.rounds import EXPECTED, FOLLOWED_BY, did_something
from tests.simulation.store import store_on
from tests.simulation.world import Ask, World, drive

TTL = 10.0
# In proportion to the ttl as a busy deployment might have it, and coarse, so that a schedule has few events.
SETTINGS = Settings(
    heartbeat_timeout=TTL,
    stale_worker_check_interval=30.0,
    workflow_stuck_timeout=40.0,
    echo_interval=2.5,
    max_gap=5.0,
    gap_grace=3.0,
    storm_max_hold=60.0,
    leader_timeout=5.0,
    leak_grace=6.0,
    leak_action="reclaim",
)
TICK = SETTINGS.echo_interval
# The chance that an event which is not acknowledged is in the stream all the same.
LOST_ACK_ALONE = 0.5
LEAD_TICKS, COMPARE_TICKS, FOLLOW_TICKS, SWEEP_TICKS = 2, 4, 3, 12


class Replica:
    """One process of the service."""

    settings = SETTINGS
    # Beyond 30 attributes Python keeps a dictionary for each, and forgets where its methods are.
    __slots__ = (
        "_asleep", "_links", "_not_before", "_running", "_socket", "_ticks", "_unread_since", "book", "born_at",
        "comparing", "cut_off", "dead", "ear", "expiry", "finish", "follow", "grants", "greetings", "hearing",
        "intake", "leadership", "link_up_at", "listening", "look_at", "mouth", "name", "nats", "paused",
        "paused_at", "postgres", "published", "relay", "replies", "reports", "started", "store", "storms",
        "sweep", "wakes", "went_on_at", "world",
    )  # fmt: skip

    def __init__(self, world: World, nats: Nats, postgres: Postgres, name: str, publish: Callable[..., Any]) -> None:
        self.world, self.nats, self.name = world, nats, name
        self.dead = self.paused = False
        # Its link to NATS cannot be made.
        self.cut_off = self.started = False
        self.born_at = self.link_up_at = world.now
        # When it last stood still, and went on.
        self.paused_at = self.went_on_at = -1e9
        self._links, self._unread_since = ([world.now], [world.now]), [world.now]
        self._asleep: list[Callable[[], None]] = []
        # With the moment at which NATS accepted it.
        self._socket: list[tuple[str, bytes, float]] = []
        self._running: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._ticks = world.random.randrange(SWEEP_TICKS)
        self.ear = Ear(self._receive)
        self.mouth = Mouth(id(self), 0.0)
        self.mouth.only = self.ear
        self.store = store_on(postgres, self, name)
        self.postgres = postgres
        self.published = publish
        self._make()
        nats.ears.append(self.ear)
        self._do("start", self._start)
        world.after(world.random.uniform(0.0, TICK), self._tick)

    def clock(self) -> float:
        """The loop's clock."""
        return self.world.now

    def _make(self) -> None:
        settings, clock, store = SETTINGS, self.clock, self.store
        self.book = book = LeaseTable(settings.heartbeat_timeout)
        self.hearing = hearing = Hearing(clock(), max_gap=settings.max_gap, gap_grace=settings.gap_grace)
        self.storms = storms = Storms(max_hold=settings.storm_max_hold, shuffle=self.world.random.shuffle)
        self.wakes = wakes = Wakes()
        self.look_at = 0.0
        self.listening = Listening(
            hearing=hearing, lines=book.lines, settings=settings, clock=clock, send=self._send,
            give_up=self._give_up, on_time=self._look, on_loss=self._listen_anew,
        )  # fmt: skip
        self.intake = Intake(
            book=book, hearing=hearing, storms=storms, settings=settings, clock=clock, wakes=wakes,
            on_echo=self.listening.hear, tell=lambda _subject, _payload: None,
        )  # fmt: skip
        self.grants = Grants(
            book=book, hearing=hearing, store=store, settings=settings, publish=self._publish, clock=clock
        )
        self.greetings = Greetings(
            book=book, hearing=hearing, intake=self.intake, store=store, answer=self._answer, clock=clock,
            leading=lambda: self.leadership.leading, wakes=wakes,
        )  # fmt: skip
        probes = Probes(book=book, ask=lambda *_: False, on_answer=self.intake.probe_answer)
        self.expiry = Expiry(
            chunk=SETTINGS.reclaim_chunk, book=book, hearing=hearing, storms=storms, probes=probes, store=store,
            clock=clock, wakes=wakes,
        )  # fmt: skip
        self.finish = Finish(store, clock)
        self.sweep = Sweep(book=book, hearing=hearing, storms=storms, store=store, settings=settings, clock=clock)
        self.relay = Relay(store=store, settings=settings, publish=self._publish_events)
        self.follow = idle.InStep(book=book, hearing=hearing, store=store, default_ttl=TTL, clock=clock)
        self.follow.replica = self
        self.leadership: Leadership = Leadership(
            leader=store.leader, timeout=settings.leader_timeout, catch_up=self.follow.catch_up,
            hears=lambda: not hearing.deaf(clock()),
        )  # fmt: skip
        self.replies: dict[str, Callable[[bytes], None]] = {}
        self.intake.reports = self.reports = Reports(leak_grace=settings.leak_grace, wedge_after=0.0)
        self.comparing = Comparing(
            book=book, hearing=hearing, reports=self.reports, store=store, settings=settings, clock=clock,
            counts=Counter(), leading=lambda: self.leadership.leading,
        )  # fmt: skip

    async def _start(self) -> None:
        await self.leadership.take()
        await restore(book=self.book, hearing=self.hearing, storms=self.storms, store=self.store, default_ttl=TTL)
        self.started = True
        self.connect()

    # The process.

    def when_awake(self, act: Callable[[], None]) -> None:
        """Do it now, or when the process goes on."""
        if self.paused:
            self._asleep.append(act)
        else:
            act()

    def pause(self) -> None:
        """Stand still."""
        self.paused = True
        self.paused_at = self.world.now

    def resume(self) -> None:
        """Go on: what waited is done in no certain order, but what was read is read in its own."""
        self.paused = False
        self.went_on_at = self.world.now
        if self.dead:
            return
        asleep, self._asleep = self._asleep, []
        todo: list[Callable[[], None]] = [*asleep, self._read]
        self.world.random.shuffle(todo)
        for act in todo:
            if not self.dead:
                act()

    def kill(self) -> None:
        """Die."""
        self.dead = True
        self.ear.server = self.mouth.server = None
        self.nats.ears.remove(self.ear)

    # Its connection to NATS.

    def connect(self) -> None:
        """Connect, and try again until it works."""
        if self.dead or self.ear.server is not None:
            return
        server = None if self.cut_off or self.paused else self.nats.any_up()
        if server is None:
            self.world.after(self.world.random.uniform(0.3, 1.5), self.connect)
            return
        self.ear.server = self.mouth.server = server
        self._note_link_up()
        self.listening.up()

    def move(self, server: Server) -> None:
        """Be connected to that server."""
        if self.ear.server is not None and self.ear.server is not server and server.up and not self.paused:
            self.ear.server = self.mouth.server = server
            self._note_link_up()
            self.listening.down()
            self.listening.up()

    def disconnected(self, server: Server | None = None) -> None:
        """Lose the connection (to that server)."""
        if self.dead or self.ear.server is None or server not in {None, self.ear.server}:
            return
        self.ear.server = self.mouth.server = None
        self._links[1].append(self.world.now)
        self._unread_since.append(self.world.now - self.ear.latency)
        self.ear.lost.update(accepted_at for *_, accepted_at in self._socket)
        self._socket.clear()
        self.when_awake(self._notice)

    def _note_link_up(self) -> None:
        self.ear.connection += 1
        self.ear.free_at = 0.0
        self.link_up_at = self.world.now
        self._links[0].append(self.world.now)

    def link_at(self, moment: float) -> tuple[float, float]:
        """Return when its link had last come up, and gone down, by that moment."""
        up, down = (max(at for at in some if at <= moment) for some in self._links)
        return up, down

    def link_losses(self) -> list[tuple[float, float]]:
        """Return since when it has read nothing, each time that its link went down, and how long until it came up."""
        up_at = [min((up for up in self._links[0][1:] if up >= off), default=self.world.now) for off in self._links[1]]
        return [(since, up - since) for since, up in zip(self._unread_since, up_at, strict=True)]

    def _notice(self) -> None:
        self.listening.down()
        self.world.after(self.world.random.uniform(0.05, 0.5), self.connect)

    def _give_up(self, _cause: str) -> None:
        self.disconnected()

    def _send(self, subject: str, payload: bytes) -> bool:
        return self.nats.publish(self.mouth, subject, payload)

    async def _publish(self, _subject: str, _payload: bytes) -> bool:
        # What a worker is told changes nothing here: those that are superseded find out when they write.
        return self.ear.server is not None

    async def _publish_events(self, events: Sequence[Event]) -> tuple[list[int], str | None]:
        def begin(resume: Callable[[Any, BaseException | None], None]) -> None:
            if self.ear.server is None or self.ear.server.paused:
                resume(([], "no answer"), None)
                return
            kept = len(events)
            if self.world.random.random() < self.nats.lost_ack:
                kept = self.world.random.randrange(len(events) + 1)
            for number, event in enumerate(events):
                if number < kept or self.world.random.random() < LOST_ACK_ALONE:
                    self.published(event)
            resume((list(range(kept)), None if kept == len(events) else "no acknowledgement"), None)

        return await Ask(begin)  # type: ignore[no-any-return]

    def _answer(self, reply: str, payload: bytes) -> object:
        take = self.replies.pop(reply, None)
        if take is not None:
            take(payload)
        return True

    def _receive(self, subject: str, payload: bytes) -> None:
        if self.paused or self._socket:
            self._socket.append((subject, payload, self.ear.accepted_at))
        elif self.started:
            if subject[11] == "a":
                # A heartbeat: of a worker, or an echo.
                self.intake.heartbeat(subject, payload)
            else:
                self._take(subject, payload)
            if self.leadership.leading:
                # A follower has nothing to do for it: what it does goes by the tick.
                self._work_if_woken()

    def _read(self) -> None:
        # What is in the socket is read at once, and in its order; the duties come behind it.
        for subject, payload, _ in self._socket:
            self._take(subject, payload)
        self._socket.clear()
        self._work_if_woken()

    def _take(self, subject: str, payload: bytes) -> None:
        kind = subject[9]
        if kind == "h":
            if subject[11] == "a":
                self.intake.heartbeat(subject, payload)
            else:
                hello, _, reply = payload.rpartition(b"\n")
                self.greetings.hello(subject, hello, reply.decode())
        elif kind == "g":
            self.intake.goodbye(subject, payload)

    def _work_if_woken(self) -> None:
        wakes = self.wakes
        if wakes.endings.is_set() or wakes.lives.is_set() or wakes.arrivals.is_set():
            self._work()

    # Its duties.

    def _look(self, now: float) -> None:
        if not self.leadership.leading:
            self.expiry.look(away=self.follow.away)
            self.storms.watch(self.book, now, away=self.follow.away)
        elif now >= self.look_at:
            self.wakes.endings.set()

    def _listen_anew(self, now: float) -> None:
        self.sweep.listening_since = now
        self.storms.lost(now)
        self.reports.lost()

    def _tick(self) -> None:
        if self.dead:
            return
        if self.paused:
            self._asleep.append(self._tick)
            return
        self.world.after(TICK, self._tick)
        if not self.started:
            self._do("start", self._start)
            return
        self._ticks += 1
        self.listening.speak()
        if self._ticks % LEAD_TICKS == 0 and not idle.nothing_to_take(self):
            self._do("leadership", self.leadership.run_once)
        if self.store.leader.term is not None and not self.leadership.leading:
            self._do("takeover", self.leadership.learn)
        self._work(again=True)

    def _work(self, *, again: bool = False) -> None:
        """Run what was woken, or has something to do; a follower only follows."""
        wakes, book = self.wakes, self.book
        if not self.leadership.leading:
            if again and self._ticks % FOLLOW_TICKS == 0 and not idle.nothing_to_learn(self):
                self._do("follow", self.follow.run_once)
            return
        if book.wanting or book.changed:
            wakes.lives.clear()
            self._do("grants", self.grants.run_once)
        if book.arrivals or (again and self.replies):
            wakes.arrivals.clear()
            if book.arrivals or not idle.nobody_greets(self):
                self._do("greetings", self.greetings.run_once)
        if wakes.endings.is_set() or book.endings:
            wakes.endings.clear()
            if not idle.nothing_is_due(self):
                self._do("expiry", self._expire)
        if again:
            self._work_by_tick()

    def _work_by_tick(self) -> None:
        if self.postgres.outbox:
            self._do("relay", self.relay.run_once)
        if self.postgres.left:
            self._do("finish", self.finish.run_once)
        if self._ticks % COMPARE_TICKS == 0 and self.reports.of:
            self._do("comparing", self.comparing.run_once)
        if self._ticks % SWEEP_TICKS == 0:
            self._do("sweep", self.sweep.run_once)

    async def _expire(self) -> None:
        try:
            await self.expiry.run_once()
        finally:
            self.look_at = min(self.book.lines.next_deadline(), self.hearing.now + TICK)

    def may_begin(self, duty: str) -> bool:
        """Say whether that duty is neither under way nor backing off."""
        return duty not in self._running and self.world.now >= self._not_before.get(duty, 0.0)

    def _do(self, duty: str, work: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        if self.may_begin(duty):
            self._running.add(duty)
            drive(work(), partial(self._done, duty))

    def _done(self, duty: str, value: Any, error: BaseException | None) -> None:
        self._running.discard(duty)
        if error is not None:
            if not isinstance(error, EXPECTED):
                raise error
            self._not_before[duty] = self.world.now + self.world.random.uniform(0.2, 1.5)
        elif duty in FOLLOWED_BY and did_something(value):
            self.world.after(0.0, lambda: self._go_on(FOLLOWED_BY[duty]))

    def _go_on(self, duty: str) -> None:
        if self.dead or self.paused or not self.leadership.leading:
            return
        if duty == "greetings" and (self.replies or self.book.arrivals):
            self._do("greetings", self.greetings.run_once)
        elif duty == "grants" and self.book.wanting:
            self._do("grants", self.grants.run_once)
        elif duty == "expiry" and self.book.endings:
            self._do("expiry", self._expire)
