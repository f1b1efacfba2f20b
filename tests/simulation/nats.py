"""A model of NATS: two servers with a route between them, connections that keep their order, and what breaks them.

A server hands on what it accepts at once and in order. What makes it late is a connection's own latency, a server that
stands still (everything waits in the sockets, and is read in any order across connections, but in order within one, and
of some of them a little later), or a reader that stands still (`Ear`). What is lost is what is sent on a connection
that is down, or to a server that dies.
"""

from collections.abc import Callable
from functools import partial

from tests.simulation.world import World

# Its subject and payload, and when it was sent.
Message = tuple[str, bytes, float]
# Seconds within which a server that goes on has read all its sockets, and the share of those that it does not read at
# once. Less than the grace that a gap leaves.
DRAIN, LATER_SHARE = 2.9, 0.4
# The chance that a batch of events is not acknowledged in full.
LOST_ACK = 0.15


class Server:
    """One NATS server."""

    def __init__(self, name: str) -> None:
        self.name = name
        # What a beat by it says of it.
        self.via = b',"via":"%b"' % name.encode()
        self.up = True
        self.paused = False
        # What waits in sockets while it stands still, by connection.
        self.waiting: dict[int, list[tuple[Mouth, Message]]] = {}
        # Since when it has not been interrupted, for the checker; and when it last stood still, and went on.
        self.broken_at = self.paused_at = self.went_on_at = -1e9
        # The connection whose socket it reads last when it goes on.
        self.last: int | None = None


class Ear:
    """A replica's connection: what it subscribes to is put into its socket."""

    def __init__(self, hear: Callable[[str, bytes], None]) -> None:
        self.hear = hear
        self.server: Server | None = None
        # Counts its connections: what is under way on one never arrives on the next.
        self.connection = 0
        # Extra seconds to its reader, when the way there is slow.
        self.latency = 0.0
        self.free_at = 0.0
        # When NATS accepted what is put into the socket just now, and what never was read.
        self.accepted_at = 0.0
        self.lost: set[float] = set()


class Mouth:
    """A connection that publishes."""

    def __init__(self, number: int, latency: float) -> None:
        self.number = number
        self.latency = latency
        self.server: Server | None = None
        self.free_at = 0.0
        # Until when what waited at that server is not read yet, and what follows waits behind it.
        self.blocked: tuple[Server | None, float] = (None, 0.0)
        # What it says is for one ear: a replica's echoes, which the others would only ignore.
        self.only: Ear | None = None
        # Called for every message that a server accepted, with the ears that it went to, and when it was sent.
        self.on_accepted: Callable[[str, list[Ear], float], None] | None = None


class Nats:
    """Both servers and all connections."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers = (Server("n1"), Server("n2"))
        self.route = True
        self.route_broken_at = -1e9
        self.ears: list[Ear] = []
        # Seconds for which a server may stand still and no echo tells.
        self.unnoticed = 0.0
        # The chance that the stream does not acknowledge all of a batch.
        self.lost_ack = LOST_ACK

    def publish(self, mouth: Mouth, subject: str, payload: bytes) -> bool:
        """Send; False when the connection is down (and what was sent is lost)."""
        server = mouth.server
        if server is None or not server.up:
            return False
        message = (subject, payload, self.world.now)
        if mouth.latency:
            # Its own order is kept, whatever the others do.
            mouth.free_at = arrives = max(mouth.free_at, self.world.now + mouth.latency)
            self.world.at(arrives, partial(self._arrive, mouth, server, message))
        elif server.paused or mouth.blocked[0] is server:
            self._arrive(mouth, server, message)
        else:
            self._accept(mouth, server, message)
        return True

    def _arrive(self, mouth: Mouth, server: Server, message: Message) -> None:
        if not server.up or mouth.server is not server:
            return
        if mouth.blocked[0] is server and mouth.blocked[1] > self.world.now and not server.paused:
            self.world.at(mouth.blocked[1], partial(self._arrive, mouth, server, message))
        elif server.paused:
            server.waiting.setdefault(mouth.number, []).append((mouth, message))
        else:
            self._accept(mouth, server, message)

    def _accept(self, mouth: Mouth, server: Server, message: Message) -> None:
        now, (subject, payload, sent) = self.world.now, message
        if mouth.only is not None:
            heard = [mouth.only]
        else:
            heard, route = [], self.route
            for ear in self.ears:
                theirs = ear.server
                if theirs is server or (route and theirs is not None and not theirs.paused):
                    heard.append(ear)
            if mouth.on_accepted is not None:
                mouth.on_accepted(subject, heard, sent)
        for ear in heard:
            # Behind what is still on its way, even when the way is short again.
            if ear.latency or ear.free_at > now:
                ear.free_at = arrives = max(ear.free_at, now + ear.latency)
                self.world.at(arrives, self._late(ear, ear.connection, message))
            else:
                ear.accepted_at = now
                ear.hear(subject, payload)

    def _late(self, ear: Ear, connection: int, message: Message) -> Callable[[], None]:
        accepted_at = self.world.now

        def arrive() -> None:
            # What was under way on a connection that is gone never arrives.
            if ear.server is not None and ear.connection == connection:
                ear.accepted_at = accepted_at
                ear.hear(message[0], message[1])
            else:
                ear.lost.add(accepted_at)

        return arrive

    def pause(self, server: Server) -> None:
        """Let a server stand still."""
        server.paused = True
        server.broken_at = server.paused_at = self.world.now

    def resume(self, server: Server) -> None:
        """Let it go on: what waited is read, in any order across connections, and of some of them a little later."""
        now, random = self.world.now, self.world.random
        server.paused = False
        server.broken_at = server.went_on_at = now
        waiting, server.waiting = server.waiting, {}
        for number in [number for number in waiting if number == server.last or random.random() < LATER_SHARE]:
            later = now + (DRAIN if number == server.last else random.uniform(0.0, DRAIN))
            for mouth, message in waiting.pop(number):
                mouth.blocked = (server, later)
                self.world.at(later, self._read_later(mouth, server, message))
        server.last = None
        numbers = [number for number, messages in waiting.items() for _ in messages]
        self.world.random.shuffle(numbers)
        for number in numbers:
            mouth, message = waiting[number].pop(0)
            if mouth.server is server:
                self._accept(mouth, server, message)

    def _read_later(self, mouth: Mouth, server: Server, message: Message) -> Callable[[], None]:
        return lambda: self._arrive(mouth, server, message)

    def kill(self, server: Server) -> None:
        """Let a server die with everything in its sockets."""
        server.up, server.paused = False, False
        server.waiting = {}
        server.broken_at = self.world.now

    def start(self, server: Server) -> None:
        """Start it again."""
        server.up = True
        server.broken_at = self.world.now

    def any_up(self) -> Server | None:
        """Return a server to connect to, if there is one that answers."""
        ready = [server for server in self.servers if server.up and not server.paused]
        return self.world.random.choice(ready) if ready else None
