"""What goes wrong: each fault begins at some moment, and says when it is over."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from tests.simulation.nats import Mouth
from tests.simulation.replica import SETTINGS, TTL, Replica
from tests.simulation.workers import STYLES, Worker

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule

Fault = Callable[["Schedule"], float]
# Faults begin behind the start, and early enough to end before the quiet.
FIRST, LAST = 0.5 * TTL, 13 * TTL


def plan(schedule: "Schedule") -> None:
    """Put the faults of a schedule on its heap: one to six of them, beside the workers' own deaths."""
    random, world = schedule.world.random, schedule.world
    kinds = random.choices(list(FAULTS), weights=[WEIGHTS.get(kind, 1) for kind in FAULTS], k=random.randint(2, 6))
    for kind in kinds:
        world.at(random.uniform(FIRST, LAST), _beginning(schedule, kind))


def _beginning(schedule: "Schedule", kind: str) -> Callable[[], None]:
    def begin() -> None:
        schedule.faults[kind] += 1
        schedule.world.tell(f"FAULT {kind}")
        lasts = FAULTS[kind](schedule)
        schedule.last_fault = max(schedule.last_fault, schedule.world.now + lasts)

    return begin


def _somebody(schedule: "Schedule") -> Worker | None:
    living = schedule.alive()
    return schedule.world.random.choice(living) if living else None


def _again(schedule: "Schedule", name: str, *, always: bool = False) -> float:
    """Start a process again, under its name or another one, or not at all."""
    random = schedule.world.random
    kind = random.random()
    if kind < NEVER_SHARE and not always:
        return 0.0
    after = random.choice((random.uniform(0.05, 1.0), random.uniform(1.0, 15.0)))
    again = name if kind < SAME_SHARE or always else f"{name}x{random.randrange(1_000)}"
    if again not in schedule.postgres.registry:
        schedule.postgres.registry[again] = ("ONLINE", schedule.world.now)
    style = random.choice(STYLES)
    schedule.world.after(after, lambda: schedule.start_worker(again, style))
    return after


def worker_dies(schedule: "Schedule") -> float:
    """SIGKILL, and perhaps another process behind it."""
    worker = _somebody(schedule)
    if worker is None:
        return 0.0
    schedule.world.tell(f"{worker.incarnation} dies")
    worker.die()
    return _again(schedule, worker.name)


def worker_restarts(schedule: "Schedule") -> float:
    """SIGKILL, and the same name again."""
    worker = _somebody(schedule)
    if worker is None:
        return 0.0
    schedule.world.tell(f"{worker.incarnation} dies, to be started again")
    worker.die()
    return _again(schedule, worker.name, always=True)


def worker_leaves(schedule: "Schedule") -> float:
    """A goodbye, and perhaps another process behind it."""
    worker = _somebody(schedule)
    if worker is None:
        return 0.0
    schedule.world.tell(f"{worker.incarnation} says goodbye")
    worker.leave()
    return _again(schedule, worker.name)


def worker_stalls(schedule: "Schedule") -> float:
    """A process stands still, for less than its ttl or for more."""
    worker = _somebody(schedule)
    seconds = schedule.world.random.uniform(1.0, 25.0)
    if worker is not None:
        schedule.world.tell(f"{worker.incarnation} stalls for {seconds:.1f} s")
        worker.stall(seconds)
    return seconds


def worker_cut_off(schedule: "Schedule") -> float:
    """A worker does not reach NATS."""
    worker = _somebody(schedule)
    seconds = schedule.world.random.uniform(2.0, 25.0)
    if worker is not None:
        schedule.world.tell(f"{worker.incarnation} is cut off for {seconds:.1f} s")
        worker.cut(seconds)
    return seconds + 5.0


def second_process(schedule: "Schedule") -> float:
    """A second process under the name of one that lives, for a while."""
    worker = _somebody(schedule)
    if worker is None:
        return 0.0
    second = schedule.start_worker(worker.name, schedule.world.random.choice(("uptime", "bare")))
    one = schedule.world.random.choice((worker, second))
    seconds = schedule.world.random.uniform(5.0, 40.0)
    schedule.world.after(seconds, one.die)
    return seconds


def answer_is_lost(schedule: "Schedule") -> float:
    """A worker stalls for a little longer than its ttl, and what Postgres says to that is lost."""
    worker = _somebody(schedule)
    seconds = schedule.world.random.uniform(1.0, 1.6) * TTL
    if worker is not None:
        schedule.world.tell(f"{worker.incarnation} stalls for {seconds:.1f} s, and its verdict is lost")
        worker.stall(seconds)
        schedule.postgres.untold = worker.name
    return seconds + 12.0


def certificate_is_late(schedule: "Schedule") -> float:
    """A supervisor starts a process again, and says sooner or later that the former one has ended."""
    random, world = schedule.world.random, schedule.world
    worker = _somebody(schedule)
    if worker is None or worker.style == "mute":
        return 0.0
    world.tell(f"{worker.incarnation} dies, to be started again, and its supervisor says so")
    worker.die()
    mouth = Mouth(-worker.number, 0.0)

    def say() -> None:
        mouth.server = schedule.nats.any_up()
        said = {"incarnation": worker.incarnation, "reason": "died", "exit_code": 137}
        schedule.nats.publish(mouth, (f"liveness.goodbye.{worker.name}", msgspec.json.encode(said)))

    lasts = _again(schedule, worker.name, always=True)
    world.after(random.uniform(0.0, lasts + 12.0), say)
    return lasts + 12.0


def many_die(schedule: "Schedule") -> float:
    """Most or all workers die at once; perhaps others come in their place."""
    random, living = schedule.world.random, schedule.alive()
    lasts = 0.0
    for worker in random.sample(living, random.randint(max(len(living) // 2, 1), len(living))) if living else ():
        schedule.world.tell(f"{worker.incarnation} dies with many")
        worker.die()
        lasts = max(lasts, _again(schedule, worker.name))
    return lasts


def server_dies(schedule: "Schedule") -> float:
    """A NATS server dies and is started again."""
    random = schedule.world.random
    server = random.choice(schedule.nats.servers)
    seconds = random.uniform(1.0, 20.0)
    schedule.world.tell(f"server {server.name} dies for {seconds:.1f} s")
    schedule.kill_server(server)
    schedule.world.after(seconds, lambda: schedule.nats.start(server))
    return seconds + 5.0


def all_servers_die(schedule: "Schedule") -> float:
    """All of NATS is gone for a while."""
    seconds = schedule.world.random.uniform(1.0, 30.0)
    for server in schedule.nats.servers:
        schedule.kill_server(server)
        schedule.world.after(seconds, _start(schedule, server))
    return seconds + 5.0


def _start(schedule: "Schedule", server: object) -> Callable[[], None]:
    return lambda: schedule.nats.start(server)  # type: ignore[arg-type]


def servers_stand_still(schedule: "Schedule") -> float:
    """One NATS server, or all, stop and go on."""
    random = schedule.world.random
    seconds = random.uniform(0.5, 20.0)
    servers = schedule.nats.servers if random.random() < ALL_SHARE else (random.choice(schedule.nats.servers),)
    for server in servers:
        schedule.world.tell(f"server {server.name} stands still for {seconds:.1f} s")
        if server.up and not server.paused:
            schedule.nats.pause(server)
            schedule.world.after(seconds, lambda server=server: schedule.nats.resume(server))  # type: ignore[misc]
    return seconds


def route_breaks(schedule: "Schedule") -> float:
    """The route between the two servers breaks; if it cuts all the workers off from the leader, that is a storm."""
    nats, world = schedule.nats, schedule.world
    seconds = world.random.uniform(3.0, 30.0)
    if not nats.route:
        return 0.0
    living = schedule.alive()
    if world.random.random() < ALL_SHARE:
        # Everybody behind one server, the replicas at the other.
        far, near = nats.servers
        for worker in living:
            worker.move(far)
        for replica in schedule.replicas:
            replica.move(near)
        # Who beats only once in its ttl may lapse before most are quiet.
        often = all(worker.interval < TTL / 2 for worker in living)
        behind = often and all(worker.said_via() and worker.mouth.server is far for worker in living)
        before = all(replica.ear.server is near for replica in schedule.replicas)
        if len(living) >= STORM_LEAST and behind and before and not far.paused and not near.paused:
            schedule.checker.checked["storm"] += 1
            for worker in living:
                worker.storm_from = world.now
                worker.storm_until = world.now + SAID_SECONDS + min(seconds, SETTINGS.storm_max_hold)
        # By then all have said by which server they come.
        world.after(SAID_SECONDS, lambda: _break(schedule, seconds))
    else:
        _break(schedule, seconds)
    return seconds + SAID_SECONDS


def _break(schedule: "Schedule", seconds: float) -> None:
    nats = schedule.nats
    nats.route = False
    nats.route_broken_at = schedule.world.now

    def heal() -> None:
        nats.route = True
        nats.route_broken_at = schedule.world.now

    schedule.world.after(seconds, heal)


def replica_stands_still(schedule: "Schedule") -> float:
    """A replica stops and goes on."""
    random = schedule.world.random
    return _pause(schedule, random.choice(schedule.replicas), random.uniform(0.5, 25.0)) if schedule.replicas else 0.0


def all_replicas_stand_still(schedule: "Schedule") -> float:
    """The machine of all replicas stops and goes on."""
    seconds = schedule.world.random.uniform(0.5, 25.0)
    for replica in schedule.replicas:
        _pause(schedule, replica, seconds)
    return seconds


def _pause(schedule: "Schedule", replica: Replica, seconds: float) -> float:
    if not replica.paused:
        schedule.world.tell(f"{replica.name} stands still for {seconds:.1f} s")
        replica.pause()
        within = schedule.checker.begun_within
        schedule.checker.begun_within = max(within, seconds + SETTINGS.echo_interval)
        schedule.world.after(seconds, replica.resume)
    return seconds


def replicas_stutter(schedule: "Schedule") -> float:
    """All replicas stand still again and again, until the end: no gap is long, and none is far from the next."""
    world = schedule.world
    if schedule.patience > 1.0:
        # Two of them at odds would leave no time at all to hear.
        return 0.0

    def once() -> None:
        for replica in schedule.replicas:
            _pause(schedule, replica, STUTTER_PAUSE)
        world.after(STUTTER_EVERY, once)

    once()
    # Hearing time is slow from here on, and a storm's hold is hearing time.
    schedule.patience *= STUTTER_EVERY / SETTINGS.echo_interval
    return 0.0


def replica_dies(schedule: "Schedule") -> float:
    """A replica is killed; another one is started."""
    random = schedule.world.random
    if not schedule.replicas:
        return 0.0
    leading = [replica for replica in schedule.replicas if replica.leadership.leading]
    replica = leading[0] if leading and random.random() < LEADER_SHARE else random.choice(schedule.replicas)
    schedule.world.tell(f"{replica.name} dies")
    return _kill(schedule, replica, random.uniform(0.1, 20.0))


def all_replicas_die(schedule: "Schedule") -> float:
    """All replicas are killed, and started again."""
    seconds = schedule.world.random.uniform(0.1, 25.0)
    for replica in list(schedule.replicas):
        _kill(schedule, replica, seconds)
    return seconds


def _kill(schedule: "Schedule", replica: Replica, seconds: float) -> float:
    schedule.replicas.remove(replica)
    schedule.checker.replica_deaths.append(schedule.world.now)
    replica.kill()
    schedule.world.after(seconds, schedule.start_replica)
    return seconds + 5.0


def replica_cut_off(schedule: "Schedule") -> float:
    """A replica does not reach NATS, for long."""
    random = schedule.world.random
    if not schedule.replicas:
        return 0.0
    leading = [replica for replica in schedule.replicas if replica.leadership.leading]
    replica = (leading or schedule.replicas)[0]
    # Sometimes for good: then another one has to act.
    seconds = random.choice((random.uniform(2.0, 30.0), 10_000.0))
    if seconds > SETTINGS.storm_max_hold and sum(one.cut_off for one in schedule.replicas) + 1 == schedule.count:
        seconds = TTL
    replica.cut_off = True
    replica.disconnected()

    def heal() -> None:
        replica.cut_off = False
        replica.connect()

    schedule.world.after(seconds, heal)
    return seconds if seconds < SETTINGS.storm_max_hold else 0.0


def replica_hears_late(schedule: "Schedule") -> float:
    """The way to a replica is slow."""
    random = schedule.world.random
    if not schedule.replicas:
        return 0.0
    replica = random.choice(schedule.replicas)
    seconds = random.uniform(5.0, 40.0)
    replica.ear.latency = random.uniform(0.3, 4.0)

    schedule.world.after(seconds, lambda: setattr(replica.ear, "latency", 0.0))
    return seconds + 4.0


def database_away(schedule: "Schedule") -> float:
    """Postgres is gone for a while."""
    seconds = schedule.world.random.uniform(1.0, 25.0)
    return _while(schedule, seconds, "up", during=False, after=True)


def database_read_only(schedule: "Schedule") -> float:
    """Postgres refuses to write."""
    return _while(schedule, schedule.world.random.uniform(1.0, 15.0), "read_only", during=True, after=False)


def database_slow(schedule: "Schedule") -> float:
    """Every transaction takes seconds."""
    random = schedule.world.random
    return _while(schedule, random.uniform(5.0, 30.0), "slowness", during=random.uniform(0.5, 6.0), after=0.0)


def database_flaky(schedule: "Schedule") -> float:
    """Transactions fail before, during and after their commit."""
    random = schedule.world.random
    return _while(schedule, random.uniform(5.0, 60.0), "flaky", during=random.uniform(0.1, 0.6), after=0.0)


def database_chokes(schedule: "Schedule") -> float:
    """A statement of ours is refused for one name."""
    random = schedule.world.random
    name = random.choice(schedule.names)
    return _while(schedule, random.uniform(5.0, 40.0), "poison", during=name, after=None)


def _while(schedule: "Schedule", seconds: float, what: str, *, during: object, after: object) -> float:
    schedule.world.tell(f"database: {what} for {seconds:.1f} s")
    setattr(schedule.postgres, what, during)
    schedule.world.after(seconds, lambda: setattr(schedule.postgres, what, after))
    # Refusals are offered again after ten seconds.
    return seconds + 12.0


def host_locks(schedule: "Schedule") -> float:
    """The host holds rows locked."""
    random, now = schedule.world.random, schedule.world.now
    seconds = random.uniform(1.0, 20.0)
    for row in random.sample(list(schedule.postgres.rows.values()), 3):
        row.locked_until = now + seconds
    return seconds


def everything_restarts(schedule: "Schedule") -> float:
    """NATS, Postgres and all replicas at once; the workers live."""
    return max(all_servers_die(schedule), all_replicas_die(schedule), database_away(schedule))


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        worker_dies, worker_restarts, worker_leaves, worker_stalls, worker_cut_off, second_process, many_die,
        answer_is_lost, certificate_is_late,
        server_dies, all_servers_die, servers_stand_still, route_breaks,
        replica_stands_still, all_replicas_stand_still, replicas_stutter, replica_dies, all_replicas_die,
        replica_cut_off, replica_hears_late,
        database_away, database_read_only, database_slow, database_flaky, database_chokes, host_locks,
        everything_restarts,
    )
}  # fmt: skip
WEIGHTS = {"worker_dies": 3, "worker_restarts": 3}
NEVER_SHARE, SAME_SHARE = 0.3, 0.8
ALL_SHARE = 0.5
LEADER_SHARE = 0.7
STORM_LEAST = 3
SAID_SECONDS = 6.0
# Longer than max_gap, and closer together than the grace is long.
STUTTER_PAUSE, STUTTER_EVERY = 5.5, 9.0
