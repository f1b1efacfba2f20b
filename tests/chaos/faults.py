"""The faults, by their names: what each does to the stage, for so long, and how it is undone."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from liveness.embedded.server import EmbeddedServer
from tests.chaos.cable import Cable
from tests.outages.fleet import Life, Silence, lingers
from tests.outages.outages import set_read_only
from tests.outages.proxy import Proxy
from tests.outages.stage import Replica, Stage, eventually

# A killed worker is started again under its name after so many seconds at most; zero is a supervisor's prompt restart.
RESTART_SECONDS: Final = 5.0
# A process that is killed sooner has not done anything yet.
YOUNG_SECONDS: Final = 2.0
# How long a worker takes to find that its connection is half open, and to connect anew.
NOTICE_SECONDS: Final = 6.0
# More than all the outages together that may come meanwhile.
SERVES_SECONDS: Final = 90.0
# How long anybody takes to send again what was lost while a cable was cut: the kernel doubles its waits.
RESUME_SECONDS: Final = 4.0


class Chaos:
    """What the faults act on. `worker_line` is the proxy between NATS and those workers that have one of their own."""

    def __init__(self, stage: Stage, chance: random.Random, cable: Cable | None) -> None:
        self.stage: Final = stage
        self.chance: Final = chance
        self.cable: Final = cable
        self.worker_line: Proxy | None = None
        self.by_line: set[str] = set()
        self.cut_off: Replica | None = None
        self.restarts: set[asyncio.Task[None]] = set()
        self.takeovers: list[float] = []

    def start_worker(self, worker: str) -> Life:
        """Start the next life of a name, with hello or without."""
        line = self.worker_line
        address = ("127.0.0.1", line.port) if line is not None and worker in self.by_line else None
        return self.stage.fleet.start(worker, hello=self.chance.random() < 0.5, nats=address)

    def lives(self) -> list[Life]:
        """Lives that run, are not paused, and are old enough to have done something."""
        return [
            life
            for life in self.stage.fleet.living()
            if not life.process.paused and time.time() - life.began > YOUNG_SECONDS
        ]

    def replicas(self) -> list[Replica]:
        """Replicas that run and are not paused."""
        return [replica for replica in self.stage.replicas if replica.running and not replica.process.paused]

    async def restart_later(self, worker: str) -> None:
        """Start the next life of a name some time from now, once Postgres carries out nothing any more for the last."""
        await asyncio.sleep(self.chance.choice([0.0, self.chance.uniform(0.0, RESTART_SECONDS)]))

        async def carried_out() -> bool:
            async with self.stage.database() as database:
                return await lingers(database, worker)

        await eventually(carried_out, lambda more: not more, f"Postgres is done with {worker}", SERVES_SECONDS)
        self.start_worker(worker)


Strike: TypeAlias = Callable[[Chaos, float], Awaitable[bool]]


@dataclass(frozen=True)
class Fault:
    """One kind: what it needs for itself, how often it comes, for how long at least and at most, and what it does."""

    resource: str
    weight: int
    shortest: float
    longest: float
    strike: Strike
    """Do it, for so many seconds of the clock, and undo it. False when there was nothing to do it to."""


class Pausable(Protocol):
    """Whom SIGSTOP freezes."""

    def pause(self) -> None:
        """Freeze it."""

    def resume(self) -> None:
        """Let it go on."""


async def stand_still(one: Pausable, seconds: float) -> None:
    """Stop it with SIGSTOP, and let it go on."""
    one.pause()
    try:
        await asyncio.sleep(seconds)
    finally:
        one.resume()


async def worker_killed(chaos: Chaos, _: float) -> bool:
    """Kill a worker; its name comes back."""
    lives = chaos.lives()
    # Nearly all at once would be a storm, which holds the lapses of the rest; that is tested elsewhere.
    if len(lives) < len({life.worker for life in chaos.stage.fleet.lives}) / 2 + 1:
        return False
    life = chaos.chance.choice(lives)
    life.process.kill()
    # All are kept: one that failed has to be heard of in the end.
    chaos.restarts.add(asyncio.create_task(chaos.restart_later(life.worker)))
    return True


async def worker_stopped(chaos: Chaos, seconds: float) -> bool:
    """Stop a worker with SIGSTOP, and let it go on."""
    lives = chaos.lives()
    if not lives:
        return False
    await stand_still(chaos.chance.choice(lives), seconds)
    return True


async def workers_half_open(chaos: Chaos, _: float) -> bool:
    """Make the connections of some workers half-open."""
    if chaos.worker_line is None:
        return False
    with unheard(chaos, "its connection was half open", NOTICE_SECONDS):
        chaos.worker_line.freeze()
        await asyncio.sleep(NOTICE_SECONDS)
    return True


async def workers_held(chaos: Chaos, seconds: float) -> bool:
    """Let the network between some workers and NATS lose everything for a while."""
    if chaos.worker_line is None:
        return False
    with unheard(chaos, "its network was away", NOTICE_SECONDS):
        chaos.worker_line.hold()
        try:
            await asyncio.sleep(seconds)
        finally:
            chaos.worker_line.release()
    return True


@contextlib.contextmanager
def unheard(chaos: Chaos, why: str, after: float) -> Iterator[None]:
    """Write down that those workers which have a line of their own cannot be heard, until `after` seconds later."""
    begin = time.time()
    try:
        yield
    finally:
        for life in chaos.stage.fleet.lives:
            if life.worker in chaos.by_line:
                life.silences.append(Silence(begin, why, time.time() + after))


async def replica_killed(chaos: Chaos, seconds: float) -> bool:
    """Kill a replica, and start it again."""
    replicas = chaos.replicas()
    if not replicas:
        return False
    replica = chaos.chance.choice(replicas)
    async with chaos.stage.disturbed(f"{replica.name} killed"):
        replica.process.kill()
        await replica.process.gone()
        await asyncio.sleep(seconds)
        await replica.start()
        await serves(replica)
    return True


async def replica_stopped(chaos: Chaos, seconds: float) -> bool:
    """Stop a replica with SIGSTOP, and let it go on."""
    replicas = chaos.replicas()
    if not replicas:
        return False
    replica = chaos.chance.choice(replicas)
    async with chaos.stage.disturbed(f"{replica.name} stopped"):
        await stand_still(replica.process, seconds)
    return True


async def serves(replica: Replica) -> None:
    """Wait until a replica that was started serves, for as long as its servers let it, or until it has ended."""

    async def look() -> bool:
        return not replica.running or bool(replica.logged("serving"))

    await eventually(look, bool, f"{replica.name} serves", SERVES_SECONDS)


def server_killed(name: str, which: Callable[[Stage], EmbeddedServer]) -> Strike:
    """Return what kills a server, and starts it again."""

    async def strike(chaos: Chaos, seconds: float) -> bool:
        server = which(chaos.stage)
        async with chaos.stage.disturbed(f"{name} killed"):
            server.kill()
            await asyncio.sleep(seconds)
            await server.start()
        return True

    return strike


def server_stopped(name: str, which: Callable[[Stage], EmbeddedServer]) -> Strike:
    """Return what stops a server with SIGSTOP, and lets it go on."""

    async def strike(chaos: Chaos, seconds: float) -> bool:
        async with chaos.stage.disturbed(f"{name} stopped"):
            await stand_still(which(chaos.stage), seconds)
        return True

    return strike


async def postgres_read_only(chaos: Chaos, seconds: float) -> bool:
    """Make Postgres refuse every write for a while."""
    async with chaos.stage.disturbed("Postgres read-only"):
        await set_read_only(chaos.stage, wanted=True)
        try:
            await asyncio.sleep(seconds)
        finally:
            await set_read_only(chaos.stage, wanted=False)
    return True


@contextlib.asynccontextmanager
async def a_line(chaos: Chaos, what: str) -> AsyncIterator[Proxy]:
    """Choose one line of one replica, and write down that it was disturbed while the body runs."""
    replica = chaos.chance.choice(chaos.stage.replicas)
    to_nats = chaos.chance.random() < 0.5
    async with chaos.stage.disturbed(f"{replica.name} to {'NATS' if to_nats else 'Postgres'}: {what}"):
        yield replica.to_nats if to_nats else replica.to_postgres


async def line_cut(chaos: Chaos, _: float) -> bool:
    """Reset the connections between a replica and one of its servers."""
    async with a_line(chaos, "cut") as line:
        line.cut()
    return True


async def line_half_open(chaos: Chaos, seconds: float) -> bool:
    """Make the connections between a replica and one of its servers half-open."""
    async with a_line(chaos, "half open") as line:
        line.freeze()
        # What it takes to notice is the service's own; within seconds, says the issue.
        await asyncio.sleep(seconds)
    return True


async def line_held(chaos: Chaos, seconds: float) -> bool:
    """Let the network between a replica and one of its servers lose everything for a while."""
    async with a_line(chaos, "held") as line:
        line.hold()
        try:
            await asyncio.sleep(seconds)
        finally:
            line.release()
    return True


async def cable_cut(chaos: Chaos, seconds: float) -> bool:
    """Cut the cable to the namespace in which one of the replicas runs, and mend it."""
    if chaos.cable is None:
        return False
    async with chaos.stage.disturbed("the cable cut"):
        await chaos.cable.cut()
        try:
            await asyncio.sleep(seconds)
        finally:
            await chaos.cable.mend()
        await asyncio.sleep(RESUME_SECONDS)
    return True


FAULTS: Final[Mapping[str, Fault]] = {
    "worker killed": Fault("worker", 10, 0.0, 0.0, worker_killed),
    "worker stopped": Fault("", 4, 0.2, 5.0, worker_stopped),
    "workers half open": Fault("worker line", 1, 0.0, 0.0, workers_half_open),
    "workers' network away": Fault("worker line", 1, 0.2, 4.0, workers_held),
    "replica killed": Fault("replica", 5, 0.0, 3.0, replica_killed),
    "replica stopped": Fault("replica", 4, 0.2, 5.0, replica_stopped),
    "nats-server killed": Fault("nats", 2, 0.0, 4.0, server_killed("nats-server", lambda stage: stage.nats)),
    "nats-server stopped": Fault("nats", 2, 0.2, 5.0, server_stopped("nats-server", lambda stage: stage.nats)),
    "Postgres killed": Fault("postgres", 2, 0.0, 3.0, server_killed("Postgres", lambda stage: stage.postgres)),
    "Postgres stopped": Fault("postgres", 2, 0.2, 5.0, server_stopped("Postgres", lambda stage: stage.postgres)),
    "Postgres read-only": Fault("postgres", 1, 0.2, 4.0, postgres_read_only),
    "connection cut": Fault("line", 3, 0.0, 0.0, line_cut),
    "connection half open": Fault("line", 2, 5.0, 6.0, line_half_open),
    "network away": Fault("line", 2, 0.2, 5.0, line_held),
    "cable cut": Fault("cable", 2, 0.2, 5.0, cable_cut),
}
