"""A model of NATS: two servers with a route between them, connections that keep their order, and what breaks them.

A server hands on what it accepts at once and in order. What makes it late is a connection's own latency, a server that
stands still (everything waits in the sockets, and is read in any order across connections, but in order within one), or
a reader that stands still (`Ear`). What is lost is what is sent on a connection that is down, or to a server that dies.
"""

from collections.abc import Callable

from tests.simulation.world import World

Message = tuple[str, bytes]


class Server:
    """One NATS server."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.up = True
        self.paused = False
        # What waits in sockets while it stands still, by connection.
        self.waiting: dict[int, list[tuple[Mouth, Message]]] = {}
        # Since when it has not been interrupted, for the checker.
        self.broken_at = -1e9


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


class Mouth:
    """A connection that publishes."""

    def __init__(self, number: int, latency: float) -> None:
        self.number = number
        self.latency = latency
        self.server: Server | None = None
        self.free_at = 0.0
        # What it says is for one ear: a replica's echoes, which the others would only ignore.
        self.only: Ear | None = None
        # Called for every message that a server accepted, with the ears that it went to.
        self.on_accepted: Callable[[str, list[Ear]], None] | None = None


class Nats:
    """Both servers and all connections."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers = (Server("n1"), Server("n2"))
        self.route = True
        self.route_broken_at = -1e9
        self.ears: list[Ear] = []

    def publish(self, mouth: Mouth, message: Message) -> bool:
        """Send; False when the connection is down (and what was sent is lost)."""
        server = mouth.server
        if server is None or not server.up:
            return False
        if mouth.latency:
            # Its own order is kept, whatever the others do.
            mouth.free_at = arrives = max(mouth.free_at, self.world.now + mouth.latency)
            self.world.at(arrives, lambda: self._arrive(mouth, server, message))
        else:
            self._arrive(mouth, server, message)
        return True

    def _arrive(self, mouth: Mouth, server: Server, message: Message) -> None:
        if not server.up or mouth.server is not server:
            return
        if server.paused:
            server.waiting.setdefault(mouth.number, []).append((mouth, message))
        else:
            self._accept(mouth, server, message)

    def _accept(self, mouth: Mouth, server: Server, message: Message) -> None:
        if mouth.only is not None:
            heard = [mouth.only]
        else:
            heard = [
                ear
                for ear in self.ears
                if ear.server is server or (self.route and ear.server is not None and not ear.server.paused)
            ]
        if mouth.on_accepted is not None:
            mouth.on_accepted(message[0], heard)
        for ear in heard:
            # Behind what is still on its way, even when the way is short again.
            if ear.latency or ear.free_at > self.world.now:
                ear.free_at = arrives = max(ear.free_at, self.world.now + ear.latency)
                self.world.at(arrives, self._late(ear, ear.connection, message))
            else:
                ear.hear(*message)

    def _late(self, ear: Ear, connection: int, message: Message) -> Callable[[], None]:
        def arrive() -> None:
            # What was under way on a connection that is gone never arrives.
            if ear.server is not None and ear.connection == connection:
                ear.hear(*message)

        return arrive

    def pause(self, server: Server) -> None:
        """Let a server stand still."""
        server.paused = True
        server.broken_at = self.world.now

    def resume(self, server: Server) -> None:
        """Let it go on: what waited is read, in any order across connections."""
        server.paused = False
        server.broken_at = self.world.now
        waiting, server.waiting = server.waiting, {}
        numbers = [number for number, messages in waiting.items() for _ in messages]
        self.world.random.shuffle(numbers)
        for number in numbers:
            mouth, message = waiting[number].pop(0)
            if mouth.server is server:
                self._accept(mouth, server, message)

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
