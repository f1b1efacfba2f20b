"""What goes wrong with Postgres: away, slow, refusing, or in the hands of the host.

Each fault says for how many seconds it lasts.
"""

from typing import TYPE_CHECKING

from tests.simulation.replica import TTL
from tests.simulation.transaction import SLOW_SHARE
from tests.simulation.worker_faults import rarest

if TYPE_CHECKING:
    from tests.simulation.schedule import Schedule


def database_away(schedule: "Schedule") -> float:
    """Postgres is gone for a while."""
    seconds = schedule.world.random.uniform(1.0, 25.0)
    return _while(schedule, seconds, "up", during=False, after=True)


def database_away_at_a_lapse(schedule: "Schedule") -> float:
    """A worker dies for good, and Postgres is gone when its time is up."""
    worker = rarest(schedule)
    if worker is None:
        return 0.0
    random, world = schedule.world.random, schedule.world
    world.tell(f"{worker.incarnation} dies, and Postgres will be away")
    worker.die()
    after, seconds = random.uniform(0.3, 0.9) * TTL, random.uniform(0.5, 2.0) * TTL
    world.after(after, lambda: _while(schedule, seconds, "up", during=False, after=True))
    return after + seconds + 2.0


def database_slow_at_a_restart(schedule: "Schedule") -> float:
    """Every transaction waits for its connection, and a process restarts and claims work at once."""
    random, world = schedule.world.random, schedule.world
    schedule.postgres.waits = random.uniform(0.3, 0.9)
    world.after(1.5 * TTL, lambda: setattr(schedule.postgres, "waits", SLOW_SHARE))
    _while(schedule, 1.5 * TTL, "slowness", during=random.uniform(2.0, 6.0), after=0.0)
    worker = rarest(schedule)
    if worker is not None:
        world.tell(f"{worker.incarnation} dies, to be started again in a hurry")
        worker.die()
        world.after(random.uniform(0.5, 3.0), lambda: schedule.start_worker(worker.name, "uptime", hurries=True))
    return 1.5 * TTL + 2.0


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
    # What was refused is offered again after ten seconds.
    return _while(schedule, random.uniform(5.0, 40.0), "poison", during=name, after=None) + 11.0


def _while(schedule: "Schedule", seconds: float, what: str, *, during: object, after: object) -> float:
    schedule.world.tell(f"database: {what} for {seconds:.1f} s")
    setattr(schedule.postgres, what, during)
    schedule.world.after(seconds, lambda: setattr(schedule.postgres, what, after))
    return seconds + 2.0


def host_locks(schedule: "Schedule") -> float:
    """The host holds rows locked."""
    random, now = schedule.world.random, schedule.world.now
    seconds = random.uniform(1.0, 20.0)
    for row in random.sample(list(schedule.postgres.rows.values()), 3):
        row.locked_until = now + seconds
    return seconds


FAULTS = (
    database_away, database_away_at_a_lapse, database_slow_at_a_restart, database_read_only, database_slow,
    database_flaky, database_chokes, host_locks,
)  # fmt: skip
