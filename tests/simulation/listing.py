"""A worker that says in its beats what it runs, and sometimes forgets a piece of it."""

from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.postgres import Claim, Row
from tests.simulation.replica import SETTINGS

if TYPE_CHECKING:
    from tests.simulation.workers import Worker

# Claims, and commits, of which the answer takes so many seconds at most: RUNNING, and not listed yet, or any more. Both
# together less than leak_grace; of one whose commits take no time, its claims. Who beats more rarely than leak_grace
# lists until it has committed: two of its beats may miss all that was listed between them.
UNDER_WAY_SHARE, UNDER_WAY, CLAIM_UNDER_WAY = 0.5, 2.9, 5.8
FORGOTTEN_SHARE = 0.3
# Much of what it runs is short: listed by one beat, or by none.
SHORT_SHARE, SHORT = 0.6, (3.0, 12.0)
# Nobody forgets anything later than that, in seconds: it is back when the schedule ends.
UNTIL = 150.0


class Listing:
    """What one worker lists."""

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        self._commits_at_once = worker.interval > SETTINGS.leak_grace or worker.world.more_random.random() < 0.5
        self.listed: dict[Claim, str] = {}
        # What it forgot, by claim, and when; and since when it does not list a row: it may have lost a former claim of
        # that, and not know it.
        self.forgotten: dict[Claim, float] = {}
        self.unlisted_at: dict[str, float] = {}
        self._finishing: set[Claim] = set()

    def claimed(self, row: Row, claim: Claim, seconds: float) -> float:
        """List it from when the answer is there; return how long it takes, `seconds` or less."""
        world = self.worker.world
        if world.more_random.random() < UNDER_WAY_SHARE:
            most = CLAIM_UNDER_WAY if self._commits_at_once else UNDER_WAY
            world.after(world.more_random.uniform(0.0, most), partial(self._begin, row, claim))
        else:
            self._begin(row, claim)
        return world.more_random.uniform(*SHORT) if world.more_random.random() < SHORT_SHARE else seconds

    def _begin(self, row: Row, claim: Claim) -> None:
        if (row, claim) in self.worker.claims and claim not in self._finishing:
            self.listed[claim] = row.id

    def over(self, row: Row, claim: Claim) -> None:
        """List it no more."""
        self.listed.pop(claim, None)
        self.unlisted_at[row.id] = self.worker.world.now

    def failed(self, row: Row, claim: Claim) -> None:
        """List it again, because the commit has failed."""
        self.listed[claim] = row.id

    def forgotten_at(self, row: Row, claim: Claim) -> float | None:
        """Return since when it neither works on that nor says so."""
        if claim not in self.forgotten or row.id in self.listed.values():
            return None
        return max(self.forgotten[claim], self.unlisted_at.get(row.id, 0.0))

    def ends(self, row: Row, claim: Claim) -> float | None:
        """Return the seconds until it commits what it has done, and lists no more; None: it forgets it instead.

        Without a word to anybody: by an exception, or a lost task.
        """
        world = self.worker.world
        if claim in self._finishing:
            return 0.0
        self._finishing.add(claim)
        if world.now < UNTIL and world.more_random.random() < FORGOTTEN_SHARE:
            world.tell(f"{self.worker.incarnation} forgets {row.id}")
            self.forgotten[claim] = world.now
        elif self._commits_at_once or world.more_random.random() >= UNDER_WAY_SHARE:
            return 0.0
        self.over(row, claim)
        return None if claim in self.forgotten else world.more_random.uniform(0.0, UNDER_WAY)

    def payload(self, said: bytes) -> bytes:
        """Return a beat with the list in it."""
        running = b",".join(b'"%b"' % one.encode() for one in self.listed.values())
        return b'%b"running":[%b]}' % (said[:-1] + b"," if len(said) > len(b"{}") else b"{", running)
