"""One seed, one story: who is there, what goes wrong, and the verdict."""

from collections import Counter
from collections.abc import Callable

import msgspec

from tests.simulation.checker import BOUND, Checker
from tests.simulation.faults import plan
from tests.simulation.giving_away import GivingAway
from tests.simulation.nats import DRAIN, Nats, Server
from tests.simulation.postgres import Claim, Postgres
from tests.simulation.quiet import out_of_step, waiting
from tests.simulation.replica import SETTINGS, TTL, Replica
from tests.simulation.workers import STYLES, Worker
from tests.simulation.world import World

SECONDS = 20 * TTL


class Result(msgspec.Struct):
    """What became of one schedule."""

    seed: int
    violations: list[str]
    faults: Counter[str]
    checked: Counter[str]
    workers: int
    replicas: int
    taken: int
    taken_unheard: int
    lateness: list[float]
    seconds: float
    story: list[str] | None = None


class Schedule:
    """Everything of one seed; `plain` without the habits that it may have."""

    def __init__(self, seed: int, *, story: bool = False, plain: bool = False) -> None:
        self.seed = seed
        self.world = world = World(seed, story=story, plain=plain)
        random = world.random
        self.nats = Nats(world)
        self.names = [f"w{number}" for number in range(5 if random.random() < FIVE_SHARE else random.randint(6, 8))]
        self.postgres = Postgres(world, rows=2 * len(self.names))
        self._poison(world.habits.poisonous)
        self.checker = Checker(world, self.nats, self.postgres)
        self.giving_away = GivingAway(world, self.checker)
        self.faults: Counter[str] = Counter()
        self.replicas: list[Replica] = []
        # When the last fault is over, and how many times the bound dead work may take then.
        self.last_fault, self.patience = 0.0, 1.0
        self._made = 0
        self._numbers = 0
        self._ghosts = -1
        self.ghosts(random.randint(1, 4) if random.random() < GHOSTS_SHARE else 0)
        for _ in range(2 if random.random() < TWO_SHARE else 3):
            self.start_replica()
        self.count = len(self.replicas)
        for name in self.names:
            self.postgres.registry[name] = ("ONLINE", 0.0)
            world.after(random.uniform(0.0, 3.0), self._starting(name, random.choice(STYLES)))

    def _poison(self, many: int) -> None:
        rows = self.world.more_random.sample(list(self.postgres.rows.values()), many)

        def mend() -> None:
            for row in rows:
                row.poisonous = False

        for row in rows:
            row.poisonous = True
        if self.world.habits.twins:
            rows[0].twin, rows[1].twin = rows[1], rows[0]
        self.world.at(SECONDS, mend)

    def ghosts(self, many: int) -> None:
        """Let there be work of so many who died long before anything of this began."""
        for _ in range(many):
            number = self._ghosts = self._ghosts + 1
            if self.postgres.rows[str(number)].status != "PENDING":
                continue
            name = f"ghost{number}"
            ghost = Worker(self.world, self.nats, self.postgres, name, 0, "mute")
            ghost.die()
            self.checker.processes[name].append(ghost)
            self.postgres.registry[name] = ("ONLINE", -500.0)
            row = self.postgres.rows[str(number)]
            row.status, row.owner, row.claim, row.touched = "RUNNING", name, Claim(ghost, -500.0), -500.0

    def start_replica(self) -> None:
        """Start a replica, beside those that run."""
        self._made += 1
        replica = Replica(self.world, self.nats, self.postgres, f"r{self._made}", self.checker.news.published)
        self.replicas.append(replica)

    def _starting(self, name: str, style: str) -> Callable[[], object]:
        return lambda: self.start_worker(name, style)

    def start_worker(self, name: str, style: str, *, hurries: bool = False) -> Worker:
        """Start a process under a name; one that `hurries` beats and claims as soon as it can, and is far from NATS."""
        self._numbers += 1
        processes = self.checker.processes[name]
        rivals = [one for one in processes if one.alive]
        worker = Worker(self.world, self.nats, self.postgres, name, self._numbers, style, lambda: self.replicas)
        worker.on_hello = self.checker.hello
        worker.on_lost, worker.on_end = self.checker.fences.lost, self._replace
        if hurries:
            worker.hurries, worker.mouth.latency = True, FAR
        worker.beside = bool(rivals)
        for one in rivals:
            one.beside = True
        processes.append(worker)
        if len(processes) > 1:
            # A member that is heard by another server is a sign: the hold has an end.
            for one in self.alive():
                one.storm_until = min(one.storm_until, self.world.now)
        self.world.tell(f"{worker.incarnation} ({style}) begins")
        worker.start()
        return worker

    def _replace(self, worker: Worker) -> None:
        """Start another process for one that has ended by its work, or by its own clock."""
        more = self.world.more_random
        seconds = more.uniform(0.5, 5.0)
        self.last_fault = max(self.last_fault, self.world.now + seconds)
        if not any(one.alive for one in self.checker.processes[worker.name]):
            self.world.after(seconds, self._starting(worker.name, more.choice(STYLES)))

    def alive(self) -> list[Worker]:
        """Return the processes that live, in a stable order."""
        return [one for some in self.checker.processes.values() for one in some if one.alive]

    def kill_server(self, server: Server) -> None:
        """Kill a NATS server, and let everybody notice."""
        self.nats.kill(server)
        for replica in list(self.replicas):
            replica.disconnected(server)
        for worker in self.alive():
            if worker.mouth.server is server:
                worker.disconnected()

    def stand_still(self, server: Server, seconds: float, last: Worker | None = None) -> None:
        """Let a NATS server stand still for so long, if it does not already, and hear `last` last when it goes on."""
        if server.up and not server.paused:
            self.world.tell(f"server {server.name} stands still for {seconds:.1f} s")
            self.checker.standstills.append((self.world.now, seconds + DRAIN))
            self.nats.pause(server)
            server.last = None if last is None else last.number
            self.world.after(seconds, lambda: self.nats.resume(server))

    def cut_off(self, replica: Replica, seconds: float) -> None:
        """Let a replica not reach NATS for so long."""
        self.world.tell(f"{replica.name} is cut off for {seconds:.1f} s")
        replica.cut_off = True
        replica.disconnected()

        def heal() -> None:
            replica.cut_off = False
            replica.connect()

        self.world.after(seconds, heal)

    def _unsettled(self) -> bool:
        checker = self.checker
        left = waiting(checker) or checker.leaks.waiting()
        return bool(left or self.postgres.outbox or out_of_step(self.postgres, self.replicas))

    def run(self) -> Result:
        """Let everything happen, then wait for quiet, and judge."""
        plan(self)
        world = self.world
        world.run(SECONDS)
        # A worker may end by itself still, of what is poisonous or lost to it.
        while (end := max(SECONDS, self.last_fault) + BOUND * self.patience) > world.now and self._unsettled():
            world.run(min(world.now + TTL / 2, end))
        self.checker.finish(self.replicas)
        taken = sum(1 for what in self.postgres.committed.values() if what.startswith("workflow"))
        return Result(
            seed=self.seed,
            violations=self.checker.violations,
            faults=self.faults,
            checked=self.checker.checked,
            workers=len(self.names),
            replicas=self.count,
            taken=taken,
            taken_unheard=self.checker.taken_unheard,
            lateness=self.checker.lateness,
            seconds=world.now,
            story=world.story,
        )


FIVE_SHARE, TWO_SHARE = 0.8, 0.9
GHOSTS_SHARE = 0.15
# Seconds from a worker that is far from NATS.
FAR = 0.6
assert SETTINGS.heartbeat_timeout == TTL
