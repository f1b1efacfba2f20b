"""A worker that looks at the clock: it stops by itself when its lease may be over. The real Fence decides."""

from functools import partial
from typing import TYPE_CHECKING

from liveness.client.fence import Fence
from liveness.client.pace import Pace
from tests.simulation.nats import Ear
from tests.simulation.replica import TTL

if TYPE_CHECKING:
    from tests.simulation.workers import Worker

# Workers to whom answers are slow, by how many seconds at most, and how long before the time is up at least.
SLOW_SHARE, SLOWEST, IN_TIME = 0.3, 3.0, 0.2
# It says goodbye when it is lost, or just ends.
LEAVES_SHARE = 0.5
# Between two looks at least, in seconds.
LEAST_LOOK = 0.001


class Fenced:
    """The fence of one worker, and what its answers tell."""

    def __init__(self, worker: "Worker") -> None:
        random = worker.world.more_random
        self.world, self.worker = worker.world, worker
        # What the machine has slept until now, in seconds.
        self.slept = 0.0
        self.fence = Fence(Pace.stated(TTL, worker.interval, None), self.clock(worker.world.now))
        self.heard_back = False
        # The answer to a beat comes later by this, and before that of the beat behind it is needed.
        left = TTL - self.fence.pace.margin - worker.interval - 2 * worker.mouth.latency - IN_TIME
        self.slow = random.uniform(0.0, min(SLOWEST, left)) if random.random() < SLOW_SHARE else 0.0
        # By ear: when it was last connected, and a beat that NATS took was not for it all the same.
        self.unrouted: dict[int, float] = {}
        self._look()

    def clock(self, moment: float) -> float:
        """Return what the worker's clock shows then: it goes on while the machine sleeps."""
        return moment

    def said(self, sent: float) -> None:
        """Note that a beat is on its way: that proves nothing."""

    def taken(self, sent: float, ears: list[Ear]) -> None:
        """Note that NATS has taken the beat sent then, and answers on the same connection, behind it."""
        everybody = self.worker.nats.ears
        if len(ears) != len(everybody):
            for ear in everybody:
                if ear.server is not None and ear not in ears:
                    self.unrouted[id(ear)] = self.world.now
        mouth = self.worker.mouth
        answer = partial(self._answered, sent, mouth.server, self.worker.moved_at)
        self.world.after(mouth.latency + self.slow, answer)

    def _answered(self, sent: float, server: object, moved_at: float) -> None:
        worker, now = self.worker, self.world.now
        if not worker.alive or worker.mouth.server is not server or worker.moved_at != moved_at:
            return
        if now < worker.stalled_until:
            self.world.at(worker.stalled_until, partial(self._answered, sent, server, moved_at))
            return
        self.heard_back = True
        self.prove(self.clock(sent), self.clock(now))

    def prove(self, sent: float, now: float) -> None:
        """Note that the beat sent then was taken, as is known now."""
        self.fence.proven(sent, now)

    def passed(self) -> bool:
        """Say whether it is lost, and stop then."""
        worker = self.worker
        if not self.fence.passed(self.clock(self.world.now)):
            return False
        if worker.alive:
            self.world.tell(f"{worker.incarnation} is lost, by its own clock, and stops")
            worker.on_lost(worker)
            if self.world.more_random.random() < LEAVES_SHARE:
                worker.leave()
            worker.die()
            worker.on_end(worker)
        return True

    def _look(self) -> None:
        worker, now = self.worker, self.world.now
        if not worker.alive:
            return
        if now < worker.stalled_until:
            # Before all else when it goes on.
            self.world.at(worker.stalled_until, self._look)
        elif not self.passed():
            self.world.after(max(self.fence.due_in(self.clock(now)), LEAST_LOOK), self._look)
