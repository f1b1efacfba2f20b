"""Worker processes: they beat, claim, finish, stall, die and begin again, often under the same name."""

from collections.abc import Callable, Sequence

import msgspec

from tests.simulation.nats import Ear, Mouth, Nats, Server
from tests.simulation.postgres import Claim, Postgres, Row
from tests.simulation.replica import TTL, Replica
from tests.simulation.world import World

# Between two and three beats in a ttl, so that a schedule is short, and some with hardly more than one:
# each second of what they are owed counts.
INTERVALS = (3.3, 4.0, 4.5, 4.5, 8.5)
# What its beats say: `uptime` the incarnation and its beginning, `hello` the same after a hello, `bare` the incarnation
# alone, `mute` nothing.
STYLES = ("uptime", "uptime", "hello", "hello", "bare", "mute")
# No claim within the time that a beat takes to NATS: that is how exactly a beginning is known by uptime.
CLAIM_SECONDS, HOLD_SECONDS = (0.7, 12.0), (3.0, 60.0)
# Between two hellos while none is answered.
HELLO_SECONDS = 2.0


class Worker:
    """One process under a name."""

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
        self.heard_by: dict[int, tuple[float, float, float]] = {}
        self.first_heard: dict[int, float] = {}
        self.lost_work = 0
        self.beating_since = 1e9
        # When it last changed its NATS server.
        self.moved_at = -1e9
        # Two processes of its name lived at once.
        self.beside = False
        # Until when a storm has to keep its work.
        self.storm_from = self.storm_until = -1e9
        self._replicas = replicas
        self.mouth = Mouth(number, random.uniform(0.05, 0.6) if random.random() < LATE_SHARE else 0.0)
        self.mouth.on_accepted = self._accepted
        self._waiting_for_hello = style == "hello"
        # Beats that were kept for a connection that is down, and are sent late.
        self._keeps = random.random() < KEEPING_SHARE
        self._kept: list[bytes] = []
        self.on_hello: Callable[[Worker], None] = lambda _: None

    def start(self) -> None:
        """Begin to live."""
        self._connect()
        if self._waiting_for_hello:
            self._hello()
        else:
            self._begin()

    def _begin(self) -> None:
        self.beating_since = self.world.now
        self._beat()
        self.world.after(self.world.random.uniform(*CLAIM_SECONDS), self._claim)

    def _accepted(self, subject: str, ears: list[Ear]) -> None:
        if subject[9] == "g":
            # A goodbye renews nothing.
            return
        now = self.world.now
        for ear in ears:
            _, former, again = self.heard_by.get(id(ear), NEVER)
            self.heard_by[id(ear)] = (former, now, now if now - former >= TTL else again)
            self.first_heard.setdefault(id(ear), now)

    # Its connection.

    def _connect(self) -> None:
        if not self.alive:
            return
        server = None if self.partitioned else self.nats.any_up()
        if server is None:
            self.excused_until = self.world.now + 2.0 + self.interval
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

    def _say(self, kind: str, payload: bytes) -> bool:
        return self.nats.publish(self.mouth, (f"liveness.{kind}.{self.name}", payload))

    # Its life.

    def _payload(self) -> dict[str, object]:
        if self.style == "mute":
            return {"ttl": TTL}
        said: dict[str, object] = {"incarnation": self.incarnation, "ttl": TTL}
        if self.mouth.server is not None:
            said["via"] = self.mouth.server.name
        if self.style != "bare":
            said["uptime"] = self.world.now - self.born_at
        return said

    def _beat(self) -> None:
        if not self.alive:
            return
        self.world.after(self.interval, self._beat)
        if self.world.now < self.stalled_until:
            return
        payload = msgspec.json.encode(self._payload()) if self.style != "mute" or self.number % 2 else b""
        if self._kept and self.mouth.server is not None:
            kept, self._kept = self._kept, []
            for late in kept:
                self._say("heartbeat", late)
        if not self._say("heartbeat", payload) and self._keeps:
            self._kept.append(payload)

    def _hello(self) -> None:
        if not self.alive or not self._waiting_for_hello:
            return
        self.world.after(HELLO_SECONDS, self._hello)
        if self.world.now < self.stalled_until:
            return
        # As many inboxes as questions; the first answer counts.
        reply = f"{self.incarnation}@{self.world.now}"
        for replica in self._replicas():
            replica.replies[reply] = self._answered
        said = {key: value for key, value in self._payload().items() if key != "via"}
        self._say("hello", msgspec.json.encode(said) + b"\n" + reply.encode())

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
        random = self.world.random
        self.world.after(random.uniform(*CLAIM_SECONDS), self._claim)
        if self.world.now < self.stalled_until or len(self.claims) >= MOST_CLAIMS:
            return
        row = self.postgres.claim(self)
        if row is not None and row.claim is not None:
            claim = row.claim
            self.claims.append((row, claim))
            self.world.after(random.uniform(*HOLD_SECONDS), lambda: self._complete(row, claim))

    def _complete(self, row: Row, claim: Claim) -> None:
        if not self.alive:
            return
        if self.world.now < self.stalled_until:
            self.world.after(self.stalled_until - self.world.now + 0.1, lambda: self._complete(row, claim))
            return
        done = self.postgres.complete(row, claim)
        if done is None:
            self.world.after(1.0, lambda: self._complete(row, claim))
            return
        self.claims.remove((row, claim))
        if not done:
            self.lost_work += 1

    def stall(self, seconds: float) -> None:
        """Do nothing for so long."""
        self.stalled_until = self.world.now + seconds
        self.excused_until = max(self.excused_until, self.stalled_until + self.interval + 0.7)

    def die(self) -> None:
        """End without a word; without effect on one that is over."""
        if not self.alive:
            return
        self.alive = False
        self.died_at = self.world.now
        self.mouth.server = None

    def leave(self) -> None:
        """Say goodbye and end."""
        if self.alive and self.world.now >= self.stalled_until:
            # What is said is on its way when the process has ended.
            self.alive = False
            self.died_at = self.world.now
            named = {} if self.style == "mute" else {"incarnation": self.incarnation}
            self.said_goodbye = self._say("goodbye", msgspec.json.encode(named))


# Workers whose way to their server takes time, and those whose client keeps what it could not send.
LATE_SHARE = 0.4
KEEPING_SHARE = 0.3
MOST_CLAIMS = 3
NEVER = (-1e9, -1e9, -1e9)
