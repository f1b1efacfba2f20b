"""What goes wrong: each fault begins at some moment, and says for how long. Here: NATS, replicas, Postgres."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.simulation import database_faults, worker_faults
from tests.simulation.nats import DRAIN, LOST_ACK
from tests.simulation.replica import SETTINGS, TTL, Replica
from tests.simulation.storm import SAID_SECONDS, expect, expect_what_is_owed
from tests.simulation.worker_faults import rarest, somebody

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule

Fault = Callable[["Schedule"], float]
# Faults begin behind the start, and early enough to end before the quiet.
FIRST, LAST = 0.5 * TTL, 13 * TTL


def plan(schedule: "Schedule") -> None:
    """Put the faults of a schedule on its heap: one to six of them, beside the workers' own deaths."""
    random, world = schedule.world.random, schedule.world
    kinds = random.choices(list(PLAIN), weights=[WEIGHTS.get(kind, 1) for kind in PLAIN], k=random.randint(2, 6))
    for kind in kinds:
        world.at(random.uniform(FIRST, LAST), _beginning(schedule, kind))
    more = world.more_random
    for habit, faults in worker_faults.OF_HABITS.items():
        for fault in more.choices(faults, k=more.randint(0, 2)) if getattr(world.habits, habit) else ():
            world.at(more.uniform(FIRST, LAST), _beginning(schedule, fault.__name__))


def _beginning(schedule: "Schedule", kind: str) -> Callable[[], None]:
    def begin() -> None:
        schedule.faults[kind] += 1
        schedule.world.tell(f"FAULT {kind}")
        lasts = FAULTS[kind](schedule)
        schedule.last_fault = max(schedule.last_fault, schedule.world.now + lasts)
        # While replicas stutter, nothing is ever well; and one that is cut off for good gives the lead away late.
        calm_at = math.inf if schedule.patience > 1.0 else schedule.world.now + max(lasts, TTL)
        schedule.checker.calm_at = max(schedule.checker.calm_at, calm_at)
        if kind not in DEATHS:
            schedule.checker.certificates.disturbed_at = schedule.checker.calm_at

    return begin


def superseded_goes_on(schedule: "Schedule") -> float:
    """A process says hello under the name of one that lives, works, and dies; the former one beats on."""
    random, world = schedule.world.random, schedule.world
    worker = somebody(schedule)
    if worker is None:
        return 0.0
    second = schedule.start_worker(worker.name, "hello")
    seconds = random.uniform(15.0, 40.0)
    world.after(seconds, second.die)
    if random.random() < ALL_SHARE:
        # Who takes over has to know it, too.
        world.after(random.uniform(TTL, seconds), lambda: all_replicas_die(schedule, 1.0))
    return seconds + 5.0


def fleet_dies(schedule: "Schedule") -> float:
    """All workers come by one server, and die at once: nobody is left to show that the way is open."""
    random, world = schedule.world.random, schedule.world
    server = random.choice(schedule.nats.servers)
    for worker in schedule.alive():
        worker.move(server)

    def die() -> None:
        for worker in schedule.alive():
            world.tell(f"{worker.incarnation} dies with the fleet")
            worker.die()
        # And what memory never knew turns up meanwhile.
        world.after(2 * TTL, lambda: schedule.ghosts(1))

    # By then all have said by which server they come.
    world.after(SAID_SECONDS, die)
    return SAID_SECONDS


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
        schedule.stand_still(server, seconds)
    return seconds + DRAIN


def servers_stand_still_before_a_beat(schedule: "Schedule") -> float:
    """All NATS servers stop just before the beat of a worker that beats rarely, and go on just behind an echo."""
    leader = next((replica for replica in schedule.replicas if replica.leadership.leading), None)
    worker = rarest(schedule, None if leader is None else leader.ear.server)
    if worker is None or leader is None:
        return 0.0
    random, now = schedule.world.random, schedule.world.now
    moment = max(worker.due_at() - random.uniform(0.01, 0.2), now)
    # As long as one echo surely tells of.
    until, echo = moment + schedule.nats.unnoticed, leader.hearing.not_before
    echoes = math.ceil((until - echo) / SETTINGS.echo_interval)
    seconds = echo + echoes * SETTINGS.echo_interval + random.uniform(0.01, 0.1) - moment

    def stand_still() -> None:
        for server in schedule.nats.servers:
            schedule.stand_still(server, seconds, last=worker)

    schedule.world.at(moment, stand_still)
    return moment - now + seconds + DRAIN


def last_beat_is_lost(schedule: "Schedule") -> float:
    """All replicas lose their connections for the moment in which a worker that beats rarely does so."""
    worker = rarest(schedule)
    if worker is None:
        return 0.0

    def lose() -> None:
        for replica in schedule.replicas:
            schedule.world.tell(f"{replica.name} loses its connection")
            replica.disconnected()

    now = schedule.world.now
    moment = max(worker.due_at() - schedule.world.random.uniform(0.0, 0.04), now)
    schedule.world.at(moment, lose)
    return moment - now + 2.0


def machine_stands_still(schedule: "Schedule") -> float:
    """The machine of NATS and the workers stands still, with its clocks, and perhaps that of the replicas."""
    random, world = schedule.world.random, schedule.world
    seconds = schedule.nats.unnoticed + random.uniform(0.1, 12.0)

    def stand_still() -> None:
        if any(server.paused or not server.up for server in schedule.nats.servers):
            return
        world.tell(f"the machine of NATS and the workers stands still for {seconds:.1f} s")
        for server in schedule.nats.servers:
            schedule.stand_still(server, seconds)
        for worker in schedule.alive():
            worker.freeze(seconds)
        if random.random() < ALL_SHARE:
            for replica in schedule.replicas:
                _pause(schedule, replica, seconds)

    # Just behind a beat, so that the next one is far.
    leader = next((replica for replica in schedule.replicas if replica.leadership.leading), None)
    last = rarest(schedule, None if leader is None else leader.ear.server)
    moment = world.now if last is None else max(last.due_at() + 0.05, world.now)
    world.at(moment, stand_still)
    return moment - world.now + seconds + DRAIN


def route_breaks(schedule: "Schedule") -> float:
    """The route between the two servers breaks; if it cuts all the workers off from the leader, that is a storm."""
    nats, world = schedule.nats, schedule.world
    seconds = world.random.uniform(3.0, 30.0)
    if not nats.route:
        return 0.0
    if world.random.random() < ALL_SHARE:
        _break(schedule, seconds)
        return seconds
    if world.random.random() < ALL_SHARE:
        _cut_off_from_all(schedule, seconds)
        return seconds + SAID_SECONDS
    # Without those of whom a storm knows little; and they are forgotten by then.
    for worker in schedule.alive():
        if worker.style == "mute" or worker.interval > TTL / 2:
            world.tell(f"{worker.incarnation} dies before a storm")
            worker.die()
    world.after(FORGOTTEN, lambda: _cut_off_from_all(schedule, seconds))
    return FORGOTTEN + seconds + SAID_SECONDS


def _cut_off_from_all(schedule: "Schedule", seconds: float) -> None:
    world, (far, near) = schedule.world, schedule.nats.servers
    living = schedule.alive()
    for worker in living:
        worker.move(far)
    for replica in schedule.replicas:
        replica.move(near)
    # Who beats only once in its ttl may lapse before most are quiet.
    often = all(worker.interval < TTL / 2 for worker in living)
    behind = often and all(worker.said_via() and worker.mouth.server is far for worker in living)
    before = all(replica.ear.server is near for replica in schedule.replicas)
    well = schedule.nats.route and not far.paused and not near.paused
    # Who was not heard since another fault had broken the route is silent already, and others are not.
    well &= all(schedule.nats.route_broken_at + one.interval + one.mouth.latency < world.now for one in living)
    if behind and before and well:
        held_for = SAID_SECONDS + min(seconds, SETTINGS.storm_max_hold)
        schedule.checker.checked["storm"] += expect(living, world.now, held_for)
    world.after(SAID_SECONDS, lambda: _break(schedule, seconds))


def _break(schedule: "Schedule", seconds: float) -> None:
    nats, now = schedule.nats, schedule.world.now
    for worker in schedule.alive():
        if not nats.route or now - worker.storm_from < SAID_SECONDS - 0.01:
            # It broke before all had said by which server they come; or heals, by another fault's word, too early.
            worker.storm_until = min(worker.storm_until, now)
    nats.route = False
    nats.route_broken_at = now

    def heal() -> None:
        nats.route = True
        nats.route_broken_at = now = schedule.world.now
        for worker in schedule.alive():
            if worker.storm_until > now + 0.01:
                # Another fault had broken it for longer: who was heard in between is owed one more ttl, and no hold.
                worker.storm_until = now
        expect_what_is_owed(schedule.alive(), now, nats.servers[0], schedule.replicas)

    schedule.world.after(seconds, heal)


def restart_behind_a_broken_route(schedule: "Schedule") -> float:
    """The route breaks between all workers and all replicas, which are started anew."""
    nats, world = schedule.nats, schedule.world
    seconds, living = world.random.uniform(25.0, 45.0), schedule.alive()
    far, near = nats.servers
    if not nats.route or any(server.paused or not server.up for server in nats.servers):
        return 0.0
    for worker in living:
        worker.move(far)
    for replica in schedule.replicas:
        replica.move(near)
    known = all(one.beating_since < world.now - TTL and one.excused_until < world.now for one in living)
    known &= all(one.name in schedule.postgres.open for one in living)
    _break(schedule, seconds)
    if known:
        schedule.checker.checked["storm"] += expect(living, world.now, seconds)
    all_replicas_die(schedule, world.random.uniform(0.1, 5.0))
    return seconds + 5.0


def stream_is_in_trouble(schedule: "Schedule") -> float:
    """NATS works, and the stream takes some events, acknowledges some, and refuses the rest."""
    seconds = schedule.world.random.uniform(5.0, 60.0)
    schedule.nats.lost_ack = 1.0
    schedule.world.after(seconds, lambda: setattr(schedule.nats, "lost_ack", LOST_ACK))
    return seconds


def replica_stands_still(schedule: "Schedule") -> float:
    """A replica stops and goes on."""
    random = schedule.world.random
    return _pause(schedule, random.choice(schedule.replicas), random.uniform(0.5, 25.0)) if schedule.replicas else 0.0


def all_replicas_stand_still(schedule: "Schedule") -> float:
    """The machine of all replicas stops and goes on; perhaps somebody dies towards the end of it."""
    seconds = schedule.world.random.uniform(0.5, 25.0)
    for replica in schedule.replicas:
        _pause(schedule, replica, seconds)
    worker = somebody(schedule)
    if worker is not None and schedule.world.random.random() < ALL_SHARE:
        schedule.world.after(0.9 * seconds, worker.die)
    return seconds


def _pause(schedule: "Schedule", replica: Replica, seconds: float) -> float:
    if not replica.paused:
        schedule.world.tell(f"{replica.name} stands still for {seconds:.1f} s")
        replica.pause()
        schedule.giving_away.stands_still(replica.name, seconds)
        schedule.checker.standstills.append((schedule.world.now, seconds))
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
    schedule.checker.stutters = world.now, schedule.checker.calm_at, 2 * STUTTER_EVERY + STUTTER_PAUSE
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


def all_replicas_die(schedule: "Schedule", seconds: float = 0.0) -> float:
    """All replicas are killed, and started again."""
    seconds = seconds or schedule.world.random.uniform(0.1, 25.0)
    for replica in list(schedule.replicas):
        _kill(schedule, replica, seconds)
    return seconds


def _kill(schedule: "Schedule", replica: Replica, seconds: float) -> float:
    schedule.replicas.remove(replica)
    if not any(one.ear.server is not None and not one.paused for one in schedule.replicas):
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
    schedule.cut_off(replica, seconds)
    if seconds > SETTINGS.storm_max_hold:
        schedule.giving_away.begin(replica.name)
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


def everything_restarts(schedule: "Schedule") -> float:
    """NATS, Postgres and all replicas at once; the workers live."""
    return max(all_servers_die(schedule), all_replicas_die(schedule), database_faults.database_away(schedule))


PLAIN: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        *worker_faults.FAULTS, fleet_dies, superseded_goes_on,
        server_dies, all_servers_die, servers_stand_still, servers_stand_still_before_a_beat, machine_stands_still,
        route_breaks, restart_behind_a_broken_route, last_beat_is_lost, stream_is_in_trouble,
        replica_stands_still, all_replicas_stand_still, replicas_stutter, replica_dies, all_replicas_die,
        replica_cut_off, replica_hears_late, *database_faults.FAULTS, everything_restarts,
    )
}  # fmt: skip
FAULTS = PLAIN | {fault.__name__: fault for some in worker_faults.OF_HABITS.values() for fault in some}
# What disturbs nobody but those who die.
DEATHS = {"worker_dies", "worker_restarts", "worker_leaves", "many_die", "certificate_is_late"}
WEIGHTS = {"worker_dies": 3, "worker_restarts": 3, "route_breaks": 3, "restarts_behind_a_standstill": 2}
ALL_SHARE = 0.5
LEADER_SHARE = 0.7
# Seconds in which the dead are given up.
FORGOTTEN = 2.5 * TTL
# Longer than max_gap, and closer together than the grace is long.
STUTTER_PAUSE, STUTTER_EVERY = 5.5, 9.0
