"""Worker processes: they beat, claim, finish, stall, die and begin again, often under the same name."""

from collections.abc import Callable, Sequence

import msgspec

from tests.simulation.again import Again
from tests.simulation.fenced import Fenced
from tests.simulation.habits import WORKERS_SHARE
from tests.simulation.listing import Listing
from tests.simulation.nats import Ear, Mouth, Nats, Server
from tests.simulation.postgres import Claim, Postgres, Row
from tests.simulation.replica import TTL, Replica
from tests.simulation.supervised import Supervisor
from tests.simulation.world import World

# Between two and three beats in a ttl, so that a schedule is short, and some with hardly more than one:
# each second of what they are owed counts.
INTERVALS = (3.3, 4.0, 4.5, 4.5, 8.5)
# What its beats say: `uptime` the incarnation and its beginning, `hello` the same after a hello, `bare` the incarnation
# alone, `mute` nothing.
STYLES = ("uptime", "uptime", "hello", "hello", "bare", "mute")
# No claim within the time that a beat takes to NATS: that is how exactly a beginning is known by uptime.
CLAIM_SECONDS, HOLD_SECONDS = (0.7, 12.0), (3.0, 60.0)
# After so many seconds a process in a hurry beats again, and after the least of CLAIM_SECONDS it claims.
HURRIED = (0.5, 1.0)
# Between two hellos while none is answered.
HELLO_SECONDS = 2.0


class Worker:
    """One process under a name."""

    # Beyond 30 attributes Python keeps a dictionary for each, and forgets where its methods are.
    __slots__ = (
        "_keeps", "_kept", "_named", "_replicas", "_subject", "_thaws", "_waiting_for_hello", "again", "alive",
        "beat_at", "beating_since", "beside", "born_at", "claims", "died_at", "epoch", "excused_until", "fenced",
        "first_heard", "frozen_for", "frozen_until", "heard_by", "hurries", "incarnation", "interval", "last_server",
        "listing", "lost_work", "mouth", "moved_at", "name", "nats", "number", "on_end", "on_hello", "on_lost",
        "partitioned", "postgres", "said_goodbye", "stalled_until", "storm_from", "storm_known", "storm_until", "style",
        "superseded", "supervisor", "world",
    )  # fmt: skip

    def __init__(
        self,
        world: World,
        nats: Nats,
        postgres: Postgres,
        name: str,
        number: int,
        style: str,
        replicas: Callable[[], Sequence[Replica]] = tuple,
    ) -> None:
        random = world.random
        self.world, self.nats, self.postgres = world, nats, postgres
        self.name = name
        self.number = number
        self.style = style
        self.incarnation = f"{name}#{number}"
        self._subject = f"liveness.heartbeat.{name}"
        self._named = b'{"incarnation":"%b","ttl":%a' % (self.incarnation.encode(), TTL)
        self.born_at = world.now
        self.alive = True
        self.died_at: float | None = None
        self.said_goodbye = False
        self.interval = random.choice(INTERVALS)
        self.stalled_until = -1.0
        self.partitioned = False
        # Until when it was silent by itself: stalled, cut off, or looking for a server.
        self.excused_until = -1e9
        self.epoch: int | None = None
        self.claims: list[tuple[Row, Claim]] = []
        # By ear: when its last two beats were heard, the one after the last silence of a ttl, and the first.
        self.heard_by: dict[int, list[float]] = {}
        self.first_heard: dict[int, float] = {}
        self.lost_work = 0
        self.beating_since = 1e9
        # By which it was heard when it died.
        self.last_server: Server | None = None
        # When it last changed its NATS server.
        self.moved_at = -1e9
        # It beats and claims as soon as it can.
        self.hurries = False
        # When it last beat, or should have; and its machine's standstill: until when, for how long, and whether the
        # next beat comes so much later.
        self.beat_at = world.now
        self.frozen_until, self.frozen_for, self._thaws = -1e9, 0.0, False
        # Two processes of its name lived at once.
        self.beside = False
        # It lives, and a newer one has said hello, and was answered, since this one was known.
        self.superseded = False
        # Until when a storm has to keep its work.
        self.storm_from = self.storm_until = -1e9
        # The ears of the replicas that saw the storm, once it is over.
        self.storm_known: set[int] | None = None
        self._replicas = replicas
        self.mouth = Mouth(number, random.uniform(0.05, 0.6) if random.random() < LATE_SHARE else 0.0)
        self.mouth.on_accepted = self.accepted
        self._waiting_for_hello = style == "hello"
        # Beats that were kept for a connection that is down, and are sent late.
        self._keeps = random.random() < KEEPING_SHARE
        self._kept: list[bytes] = []
        self.on_hello: Callable[[Worker], None] = lambda _: None
        # Called when it stops by its own clock, and when it has ended by that or by its work.
        self.on_lost: Callable[[Worker], None] = lambda _: None
        self.on_end: Callable[[Worker], None] = lambda _: None
        habits, more = world.habits, world.more_random
        self.fenced: Fenced | None = None
        # The supervisor says which process has ended, so that one has to have said it, too.
        named = habits.supervised and style != "mute" and more.random() < WORKERS_SHARE
        self.supervisor = Supervisor(self) if named else None
        self.listing = Listing(self) if habits.listing and more.random() < WORKERS_SHARE else None
        self.again = Again(self) if habits.again and style == "hello" else None

    def start(self) -> None:
        """Begin to live."""
        self._connect()
        if self._waiting_for_hello:
            self._hello()
        else:
            self._begin()

    def _begin(self) -> None:
        self.beating_since = self.world.now
        # One that beats hardly more than once in its ttl is lost with any answer that is late.
        if self.world.habits.fenced and self.interval < TTL / 2 and self.world.more_random.random() < WORKERS_SHARE:
            self.fenced = Fenced(self)
        # A beat that was not due yet when the machine stood still is not late by that.
        self._thaws = self._thaws and self.world.now < self.frozen_until
        self._beat()
        if self.hurries:
            for seconds in HURRIED:
                self.world.after(seconds, self._beat_once)
        latest = CLAIM_SECONDS[0] if self.hurries else CLAIM_SECONDS[1]
        self.world.after(self.world.random.uniform(CLAIM_SECONDS[0], latest), self._claim)

    def accepted(self, subject: str, ears: list[Ear], sent: float) -> None:
        """Note that NATS has taken what it said, and for whom."""
        if subject[9] == "g":
            # A goodbye renews nothing.
            return
        if self.fenced is not None and subject[11] == "a":
            self.fenced.taken(sent, ears)
        if self.again is not None and subject[11] == "l":
            self.again.accepted(ears)
        now, heard_by = self.world.now, self.heard_by
        for ear in ears:
            known = heard_by.get(id(ear))
            if known is None:
                heard_by[id(ear)] = [NEVER[1], now, now]
                self.first_heard[id(ear)] = now
            else:
                former = known[0] = known[1]
                known[1] = now
                if now - former >= TTL:
                    known[2] = now

    # Its connection.

    def _connect(self) -> None:
        if not self.alive:
            return
        server = None if self.partitioned else self.nats.any_up()
        if server is None:
            self.excused_until = max(self.excused_until, self.world.now + 2.0 + self.interval)
            self.world.after(self.world.random.uniform(0.5, 2.0), self._connect)
        else:
            self.mouth.server = server
            self.moved_at = self.world.now

    def move(self, server: Server) -> None:
        """Be connected to that server."""
        if self.mouth.server is not None and self.mouth.server is not server and server.up and not server.paused:
            self.mouth.server = server
            self.moved_at = self.world.now
            if self.mouth.latency:
                # What was on its way is lost.
                self.excused_until = max(self.excused_until, self.world.now + self.interval + 0.7)

    def said_via(self) -> bool:
        """Say whether its beats tell by which server they come, and it beats there now."""
        mute = self.style == "mute" or self._waiting_for_hello
        return not mute and self.mouth.server is not None and self.world.now > self.excused_until

    def disconnected(self) -> None:
        """Lose the connection, and look for another."""
        self.mouth.server = None
        self.excused_until = max(self.excused_until, self.world.now + 2.5 + self.interval)
        self.world.after(self.world.random.uniform(0.2, 2.5), self._connect)

    def cut(self, seconds: float) -> None:
        """Be cut off from NATS for so long."""
        self.partitioned = True
        self.mouth.server = None
        self.excused_until = max(self.excused_until, self.world.now + seconds + 3.0 + self.interval)

        def heal() -> None:
            self.partitioned = False
            self._connect()

        self.world.after(seconds, heal)

    def say(self, kind: str, payload: bytes) -> bool:
        """Say it, if there is a connection."""
        return self.nats.publish(self.mouth, f"liveness.{kind}.{self.name}", payload)

    # Its life.

    def _payload(self) -> bytes:
        # Put together by hand, because all but the uptime stays the same: it is read by the real code all the same.
        if self.style == "mute":
            return b'{"ttl":%a}' % TTL if self.number % 2 else b""
        server = self.mouth.server
        via = b"" if server is None or self._waiting_for_hello else server.via
        if self.style == "bare":
            return b"%b%b}" % (self._named, via)
        return b'%b%b,"uptime":%a}' % (self._named, via, self.world.now - self.born_at)

    def _beat(self) -> None:
        if not self.alive:
            return
        if self._thaws:
            self._thaws = False
            self.world.after(self.frozen_for, self._beat)
            return
        self.world.after(self.interval, self._beat)
        self.beat_at = self.world.now
        self._beat_once()

    def _beat_once(self) -> None:
        if not self.alive or self.world.now < self.stalled_until:
            return
        payload = self._payload()
        if self.listing is not None:
            payload = self.listing.payload(payload)
        if self._kept and self.mouth.server is not None:
            kept, self._kept = self._kept, []
            for late in kept:
                self.say("heartbeat", late)
        if not self.nats.publish(self.mouth, self._subject, payload):
            if self._keeps:
                self._kept.append(payload)
        elif self.fenced is not None:
            self.fenced.said(self.world.now)

    def _hello(self) -> None:
        if not self.alive or not self._waiting_for_hello:
            return
        self.world.after(HELLO_SECONDS, self._hello)
        if self.world.now >= self.stalled_until:
            self.greet(self._answered)

    def greet(self, answered: Callable[[bytes], None]) -> None:
        """Say hello, and let `answered` take the answer."""
        # As many inboxes as questions; the first answer counts.
        reply = f"{self.incarnation}@{self.world.now}"
        for replica in self._replicas():
            replica.replies[reply] = answered
        self.say("hello", self._payload() + b"\n" + reply.encode())

    def _answered(self, payload: bytes) -> None:
        if not self.alive or not self._waiting_for_hello:
            return
        answer = msgspec.json.decode(payload)
        if answer["epoch"] is None:
            # Refused: a newer one is there.
            self.die()
            return
        self._waiting_for_hello = False
        self.epoch = answer["epoch"]
        self.on_hello(self)
        self._begin()

    def _claim(self) -> None:
        if not self.alive:
            return
        world = self.world
        soon = self.hurries and not self.claims
        world.after(CLAIM_SECONDS[0] if soon else world.random.uniform(*CLAIM_SECONDS), self._claim)
        waits = self.again is not None and self.again.waiting
        if waits or world.now < self.stalled_until or len(self.claims) >= MOST_CLAIMS:
            return
        row = self.postgres.claim(self)
        if row is not None and row.claim is not None:
            self._run(row, row.claim)
            twin = row.twin
            if twin is not None and self.postgres.claim_row(twin, self) and twin.claim is not None:
                self._run(twin, twin.claim)

    def _run(self, row: Row, claim: Claim) -> None:
        world = self.world
        self.claims.append((row, claim))
        if row.poisonous:
            world.after(world.more_random.uniform(*POISON_SECONDS), lambda: self._die_of(row, claim))
            seconds = HOLD_SECONDS[1]
        else:
            seconds = world.random.uniform(*HOLD_SECONDS)
        if self.listing is not None:
            seconds = self.listing.claimed(row, claim, seconds)
        if not row.poisonous:
            world.after(seconds, lambda: self._complete(row, claim))

    def _complete(self, row: Row, claim: Claim) -> None:
        if not self.alive or claim.dropped:
            return
        if self.world.now < self.stalled_until:
            self.world.after(self.stalled_until - self.world.now + 0.1, lambda: self._complete(row, claim))
            return
        if self.fenced is not None and self.fenced.passed():
            return
        takes = 0.0 if self.listing is None else self.listing.ends(row, claim)
        if takes is None:
            self.claims.remove((row, claim))
            return
        if takes:
            self.world.after(takes, lambda: self._complete(row, claim))
            return
        done = self.postgres.complete(row, claim)
        if done is None:
            if self.listing is not None:
                self.listing.failed(row, claim)
            self.world.after(1.0, lambda: self._complete(row, claim))
            return
        self.claims.remove((row, claim))
        if self.listing is not None:
            self.listing.over(row, claim)
        if not done:
            self.lost_work += 1

    def _die_of(self, row: Row, claim: Claim) -> None:
        if not self.alive or claim.dropped:
            return
        if self.world.now < self.stalled_until:
            self.world.at(self.stalled_until + 0.1, lambda: self._die_of(row, claim))
        elif not row.poisonous:
            # Somebody has mended it.
            self._complete(row, claim)
        else:
            self.world.tell(f"{self.incarnation} dies of {row.id}")
            self.die(killed=True)
            self.on_end(self)

    def stall(self, seconds: float) -> None:
        """Do nothing for so long."""
        self.storm_until = min(self.storm_until, self.world.now)
        self.stalled_until = self.world.now + seconds
        self.excused_until = max(self.excused_until, self.stalled_until + self.interval + 0.7)

    def freeze(self, seconds: float) -> None:
        """Stand still for so long with the machine and its clocks: the next beat comes so much later."""
        self.frozen_until, self.frozen_for, self._thaws = self.world.now + seconds, seconds, True
        self.stalled_until = max(self.stalled_until, self.frozen_until)

    def sleep(self, seconds: float) -> None:
        """Stand still for so long with its own machine alone."""
        self.stall(seconds)
        self.freeze(seconds)
        if self.fenced is not None:
            self.fenced.slept += seconds

    def due_at(self) -> float:
        """Return when its next beat reaches its server."""
        return self.beat_at + self.interval + self.mouth.latency

    def die(self, *, killed: bool = False) -> None:
        """End without a word, perhaps by what it ran (`killed`); without effect on one that is over."""
        if not self.alive:
            return
        self.alive = False
        self.died_at = self.world.now
        self.last_server = self.mouth.server
        if self.supervisor is None:
            self.mouth.server = None
        else:
            self.supervisor.ended(killed=killed)

    def leave(self) -> None:
        """Say goodbye and end."""
        if self.alive and self.world.now >= self.stalled_until:
            # What is said is on its way when the process has ended.
            self.alive = False
            self.died_at = self.world.now
            named = {} if self.style == "mute" else {"incarnation": self.incarnation}
            uptime = {"uptime": self.died_at - self.born_at} if self.style == "hello" else {}
            self.said_goodbye = self.say("goodbye", msgspec.json.encode(named | uptime))


# Seconds for which poisonous work runs.
POISON_SECONDS = (1.0, 6.0)
# Workers whose way to their server takes time, and those whose client keeps what it could not send.
LATE_SHARE = 0.4
KEEPING_SHARE = 0.3
MOST_CLAIMS = 3
NEVER = (-1e9, -1e9, -1e9)
