"""What goes wrong with workers: they die, restart, stall, are cut off, and meet others of their name.

Each fault says for how many seconds it lasts.
"""

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from tests.simulation.again import LATEST
from tests.simulation.nats import DRAIN, Mouth, Server
from tests.simulation.replica import SETTINGS, TTL
from tests.simulation.workers import INTERVALS, STYLES, Worker

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule


def somebody(schedule: "Schedule") -> Worker | None:
    """Return one that lives, if anybody does."""
    living = schedule.alive()
    return schedule.world.random.choice(living) if living else None


def rarest(schedule: "Schedule", server: Server | None = None) -> Worker | None:
    """Return one that beats most rarely of those that live (and are connected to `server`), if there are any."""
    some = [worker for worker in schedule.alive() if server is None or worker.mouth.server is server]
    return max(some, key=lambda worker: worker.interval, default=None)


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
    worker = somebody(schedule)
    if worker is None:
        return 0.0
    schedule.world.tell(f"{worker.incarnation} dies")
    worker.die()
    return _again(schedule, worker.name)


def worker_restarts(schedule: "Schedule") -> float:
    """SIGKILL, and the same name again."""
    worker = somebody(schedule)
    if worker is None:
        return 0.0
    schedule.world.tell(f"{worker.incarnation} dies, to be started again")
    worker.die()
    return _again(schedule, worker.name, always=True)


def worker_leaves(schedule: "Schedule") -> float:
    """A goodbye, and perhaps another process behind it."""
    worker = somebody(schedule)
    if worker is None:
        return 0.0
    schedule.world.tell(f"{worker.incarnation} says goodbye")
    worker.leave()
    return _again(schedule, worker.name)


def worker_stalls(schedule: "Schedule") -> float:
    """A process stands still, for less than its ttl or for more."""
    worker = somebody(schedule)
    seconds = schedule.world.random.uniform(1.0, 25.0)
    if worker is not None:
        schedule.world.tell(f"{worker.incarnation} stalls for {seconds:.1f} s")
        worker.stall(seconds)
    return seconds


def worker_cut_off(schedule: "Schedule") -> float:
    """A worker does not reach NATS."""
    worker = somebody(schedule)
    seconds = schedule.world.random.uniform(2.0, 25.0)
    if worker is not None:
        schedule.world.tell(f"{worker.incarnation} is cut off for {seconds:.1f} s")
        worker.cut(seconds)
    return seconds + 5.0


def second_process(schedule: "Schedule") -> float:
    """A second process under the name of one that lives, for a while."""
    worker = somebody(schedule)
    if worker is None:
        return 0.0
    second = schedule.start_worker(worker.name, schedule.world.random.choice(("uptime", "bare")))
    one = schedule.world.random.choice((worker, second))
    seconds = schedule.world.random.uniform(5.0, 40.0)
    schedule.world.after(seconds, one.die)
    return seconds


def answer_is_lost(schedule: "Schedule") -> float:
    """A worker stalls for a little longer than its ttl, and what Postgres says to that is lost."""
    worker = somebody(schedule)
    seconds = schedule.world.random.uniform(1.0, 1.6) * TTL
    if worker is not None:
        schedule.world.tell(f"{worker.incarnation} stalls for {seconds:.1f} s, and its verdict is lost")
        worker.stall(seconds)
        schedule.postgres.untold = worker.name
    return seconds + 12.0


def certificate_is_late(schedule: "Schedule") -> float:
    """A supervisor starts a process again, and says sooner or later that the former one has ended."""
    random, world = schedule.world.random, schedule.world
    worker = somebody(schedule)
    if worker is None or worker.style == "mute":
        return 0.0
    world.tell(f"{worker.incarnation} dies, to be started again, and its supervisor says so")
    # No other one.
    worker.supervisor = None
    worker.die()
    mouth = Mouth(-worker.number, 0.0)

    def say() -> None:
        mouth.server = schedule.nats.any_up()
        said = {"incarnation": worker.incarnation, "reason": "died", "exit_code": 137}
        schedule.nats.publish(mouth, f"liveness.goodbye.{worker.name}", msgspec.json.encode(said))

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


def restarts_heard_late(schedule: "Schedule") -> float:
    """The ways to all replicas are slow while a process restarts that claims work at once."""
    random, world = schedule.world.random, schedule.world
    worker = somebody(schedule)
    if worker is None:
        return 0.0
    seconds = random.uniform(15.0, 30.0)
    for replica in schedule.replicas:
        replica.ear.latency = random.uniform(1.5, 4.0)
        world.after(seconds, lambda replica=replica: setattr(replica.ear, "latency", 0.0))  # type: ignore[misc]
    world.tell(f"{worker.incarnation} dies, to be started again in a hurry, and is heard late")
    worker.die()
    world.after(random.uniform(0.5, 5.0), lambda: schedule.start_worker(worker.name, "uptime", hurries=True))
    return seconds + 4.0


def restarts_behind_a_standstill(schedule: "Schedule") -> float:
    """A process restarts and claims work at once; all that it says for seconds waits in one socket, behind an echo."""
    random, world, nats = schedule.world.random, schedule.world, schedule.nats
    worker = somebody(schedule)
    if worker is None or any(server.paused or not server.up for server in nats.servers):
        return 0.0
    world.tell(f"{worker.incarnation} dies, to be started again before a standstill")
    worker.die()

    def start() -> None:
        schedule.start_worker(worker.name, "uptime", hurries=True)
        echoes = [replica.hearing.not_before for replica in schedule.replicas if replica.leadership.leading]
        seconds = random.uniform(2.0, 9.0)
        if echoes and random.random() < BEHIND_SHARE:
            # So short that no echo tells, and until an echo is the last thing that waits.
            seconds = (echoes[0] - world.now) % SETTINGS.echo_interval + SETTINGS.echo_interval + 0.05
        for server in nats.servers:
            schedule.stand_still(server, seconds)

    after = random.uniform(0.5, 5.0)
    world.after(after, start)
    return after + 9.0 + DRAIN


def second_process_is_believed(schedule: "Schedule") -> float:
    """A second process beats often while the first one's next beat is far, and the verdict has to wait."""
    random, world = schedule.world.random, schedule.world
    worker = rarest(schedule)
    if worker is None:
        return 0.0
    after = max(worker.due_at() + 0.1 - world.now, 0.1)

    def start() -> None:
        if worker.alive:
            second = schedule.start_worker(worker.name, "uptime", hurries=True)
            second.interval = min(INTERVALS)
            one = random.choice((worker, second))
            world.after(random.uniform(5.0, 40.0), one.die)
            schedule.postgres.up = False
            world.after(TTL, lambda: setattr(schedule.postgres, "up", True))

    world.after(after, start)
    return after + 40.0


def starts_unheard(schedule: "Schedule") -> float:
    """A process of a new name begins and works while no replica reaches NATS."""
    random, world = schedule.world.random, schedule.world
    seconds = random.uniform(1.5, 5.0) * TTL
    for replica in schedule.replicas:
        schedule.cut_off(replica, seconds)
    name = f"w{random.randrange(1_000)}new"
    if name in schedule.postgres.registry:
        return seconds
    schedule.postgres.registry[name] = ("ONLINE", world.now)
    style = random.choice(STYLES[:-1])
    world.after(random.uniform(0.0, TTL), lambda: schedule.start_worker(name, style))
    return seconds + TTL


def worker_sleeps(schedule: "Schedule") -> float:
    """The machine of one worker sleeps, for less than its ttl or for more; its clock goes on."""
    random, living = schedule.world.more_random, schedule.alive()
    seconds = random.uniform(1.0, 25.0)
    if living:
        worker = random.choice(living)
        schedule.world.tell(f"the machine of {worker.incarnation} sleeps for {seconds:.1f} s")
        worker.sleep(seconds)
    return seconds + 1.0


def lists_heard_late(schedule: "Schedule") -> float:
    """The ways to all replicas are as slow as an echo may be: when a list is heard, much of the work is newer."""
    random, world = schedule.world.more_random, schedule.world
    seconds = random.uniform(20.0, 40.0)
    world.tell(f"all replicas hear late for {seconds:.1f} s")
    for replica in schedule.replicas:
        replica.ear.latency = random.uniform(0.8, 0.98) * SETTINGS.max_gap
        world.after(seconds, partial(setattr, replica.ear, "latency", 0.0))
    return seconds + SETTINGS.max_gap


def worker_begins_again(schedule: "Schedule") -> float:
    """A worker gives its life up and begins another one, and its goodbye may come behind its hello."""
    some = [one.again for one in schedule.alive() if one.again is not None and one.again.may_begin]
    if some:
        schedule.world.more_random.choice(some).begin()
    return LATEST if some else 0.0


NEVER_SHARE, SAME_SHARE = 0.3, 0.8
BEHIND_SHARE = 0.5
FAULTS = (
    worker_dies, worker_restarts, worker_leaves, worker_stalls, worker_cut_off, second_process, many_die,
    answer_is_lost, certificate_is_late, restarts_heard_late, restarts_behind_a_standstill, second_process_is_believed,
    starts_unheard,
)  # fmt: skip
# By the second die, for those who have the habit.
OF_HABITS = {"fenced": (worker_sleeps,), "listing": (lists_heard_late,), "again": (worker_begins_again,)}
