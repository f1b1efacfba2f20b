"""A worker that gives its life up and begins another one under its incarnation, as `begin_again` does.

Both words are said again until there is a greater epoch, and only the answer to the last hello counts. A goodbye may go
by another connection than the hello behind it: one that stood still, so that it comes late.
"""

import math
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from tests.simulation.nats import Ear, Mouth
from tests.simulation.replica import TTL

if TYPE_CHECKING:
    from tests.simulation.workers import Worker

# Seconds between two hellos while none is answered by a greater epoch.
AGAIN_SECONDS = 2.0
# Goodbyes that come late, and by how many seconds at most.
LATE_SHARE, LATEST = 0.6, 3 * TTL


class Again:
    """The lives of one worker behind its first."""

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        self.waiting = False
        self.began_at = -math.inf
        # By ear: when the hello of the life that goes on, or is to begin, was put into its socket.
        self.greeted: dict[int, float] = {}
        self._former = 0
        self._number = 0

    @property
    def may_begin(self) -> bool:
        """Whether it lives one that it can give up."""
        worker = self.worker
        return not self.waiting and worker.beating_since <= worker.world.now >= worker.stalled_until

    def begin(self) -> None:
        """Drop everything, and wait for the next life."""
        worker = self.worker
        worker.world.tell(f"{worker.incarnation} begins again")
        for row, claim in worker.claims:
            claim.dropped = True
            if worker.listing is not None:
                worker.listing.over(row, claim)
        worker.claims.clear()
        self.waiting, self._former, self.began_at = True, worker.epoch or 0, worker.world.now
        self.greeted.clear()
        self._say()

    def _say(self) -> None:
        worker, world = self.worker, self.worker.world
        if not worker.alive or not self.waiting:
            return
        world.after(AGAIN_SECONDS, self._say)
        if world.now < worker.stalled_until:
            return
        self._number += 1
        uptime = math.nextafter(world.now - worker.born_at, 0.0)
        goodbye = msgspec.json.encode({"incarnation": worker.incarnation, "uptime": uptime})
        if world.more_random.random() < LATE_SHARE:
            late = world.more_random.uniform(0.0, LATEST)
            world.tell(f"the goodbye of {worker.incarnation} at {uptime:.2f} s comes {late:.1f} s late")
            world.after(late, partial(self._say_late, goodbye))
        else:
            worker.say("goodbye", goodbye)
        worker.greet(partial(self._answered, self._number))

    def _say_late(self, goodbye: bytes) -> None:
        worker = self.worker
        mouth = Mouth(-worker.number, 0.0)
        mouth.server = worker.nats.any_up()
        worker.nats.publish(mouth, f"liveness.goodbye.{worker.name}", goodbye)

    def accepted(self, ears: list[Ear]) -> None:
        """Note that NATS has taken a hello."""
        if self.waiting:
            for ear in ears:
                self.greeted[id(ear)] = self.worker.world.now

    def _answered(self, number: int, payload: bytes) -> None:
        worker = self.worker
        if not worker.alive or not self.waiting or number != self._number:
            return
        epoch = msgspec.json.decode(payload)["epoch"]
        if epoch is None:
            # A newer one is there.
            worker.die()
        elif epoch > self._former:
            self.waiting, worker.epoch = False, epoch
            worker.world.tell(f"{worker.incarnation} has begun again, under epoch {epoch}")
            worker.on_hello(worker)

    def heard_at(self, ear: Ear) -> float | None:
        """Return when the life that goes on was heard to begin by `ear`, if it was."""
        at = self.greeted.get(id(ear))
        return None if self.waiting or at is None or at in ear.lost else at
