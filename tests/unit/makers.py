"""What several of the unit tests need: books with leases in them, and a pair of ears whose time the test lets pass."""

import itertools

from liveness.hearing import Echo, Hearing
from liveness.lease import Ending, Lease
from liveness.leases import Heard, LeaseTable
from liveness.messages import Heartbeat

MAX_GAP = 0.5
# All of them are sums of powers of two, so that times add up to the last bit.
STEP = 0.25


def live(
    book: LeaseTable,
    worker: str = "w",
    now: float = 0.0,
    *,
    epoch: int = 1,
    ttl: float | None = 10.0,
    incarnation: str | None = None,
) -> Lease:
    """Let `worker` beat for the first time and be granted an epoch, of which Postgres knows all; return its lease."""
    book.beat(worker, now, Heartbeat(incarnation=incarnation, ttl=ttl))
    book.granted(worker, epoch)
    book.changed.pop(worker)
    return lease_of(book, worker)


def restored(
    book: LeaseTable, *workers: str, now: float = 0.0, ttl: float = 10.0, incarnation: str | None = None
) -> None:
    """Restore leases of `workers` whose epoch is 1."""
    for worker in workers:
        book.restore(worker, now, ttl, epoch=1, incarnation=incarnation)


def says(book: LeaseTable, incarnation: str, *, at: float, uptime: float | None, worker: str = "w") -> Heard:
    """Let `worker` beat at `at`, in hearing time as in the loop's, as a process that is `uptime` seconds old."""
    return book.beat(worker, at, Heartbeat(incarnation=incarnation, uptime=uptime), at)


def lease_of(book: LeaseTable, worker: str = "w") -> Lease:
    """Return the lease of a worker that has one."""
    lease = book.get(worker)
    assert lease is not None
    return lease


def ending_of(book: LeaseTable, worker: str = "w") -> Ending:
    """Return why the lease of a worker ends that does."""
    ending = book.endings[worker].ending
    assert ending is not None
    return ending


def names(leases: list[Lease]) -> list[str]:
    """Return whose leases these are."""
    return [lease.worker for lease in leases]


def lapsed(book: LeaseTable, now: float) -> list[str]:
    """Return the names that lapse by `now`."""
    return names(book.lapse(now))


class Ears:
    """A hearing whose echoes the test sends and hears, and a loop whose time it lets pass."""

    def __init__(self, time: float = 0.0, *, max_gap: float = MAX_GAP, gap_grace: float = 0.0, up: bool = True) -> None:
        self.time = time
        self.hearing = Hearing(time, max_gap=max_gap, gap_grace=gap_grace)
        self._tokens = itertools.count()
        if up:
            self.hearing.start(time)

    @property
    def now(self) -> float:
        """Hearing time."""
        return self.hearing.now

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.time += seconds

    def send(self) -> bytes:
        """Send an echo and return its token."""
        token = b"%d" % next(self._tokens)
        self.hearing.sent(token, self.time)
        return token

    def hear(self, token: bytes) -> Echo:
        """Hear an echo."""
        return self.hearing.heard(token, self.time)

    def stamp(self) -> float:
        """Note a beat that is heard now."""
        return self.hearing.stamp(self.time)

    def listen(self, seconds: float) -> None:
        """Hear well for so long: an echo each STEP, which comes back at once."""
        for _ in range(round(seconds / STEP)):
            self.wait(STEP)
            assert self.hear(self.send()) is Echo.COUNTED

    def stall(self, seconds: float) -> None:
        """Let one echo come back so late."""
        token = self.send()
        self.wait(seconds)
        assert self.hear(token) is Echo.GAP

    def ago(self, moment: float) -> float:
        """Return how many seconds ago hearing time was `moment`."""
        return self.hearing.real_ago(moment, self.time)


def holds_live(book: LeaseTable, worker: str) -> bool:
    """Say whether `worker` has a lease that has not lapsed and was not ended."""
    lease = book.get(worker)
    return lease is not None and lease.ending is None
