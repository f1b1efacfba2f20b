"""The rules `fence` and `absent service` of `checker`: who goes by its own clock stops in time, and not for nothing."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tests.simulation.nats import Nats
from tests.simulation.postgres import Claim, Expiration, Row
from tests.simulation.replica import TTL
from tests.simulation.rivals import has_replaced, is_replaced
from tests.simulation.workers import NEVER, Worker
from tests.simulation.world import World

# Seconds: how long a worker has been without trouble that is lost without reason; twice what any window lasts.
WITHOUT_TROUBLE = 2 * TTL
# Seconds by which a replica may hear late, so that a verdict does not know of who began meanwhile.
UNHEARD = 10.0


class Fences:
    """Watches the fences of one schedule. `wrong` takes a rule and a sentence, `checked` counts."""

    def __init__(
        self,
        world: World,
        nats: Nats,
        processes: Mapping[str, Sequence[Worker]],
        wrong: Callable[[str, str], None],
        checked: Counter[str],
    ) -> None:
        self._world, self._nats = world, nats
        self._processes = processes
        self._wrong = wrong
        self._checked = checked

    def taken(self, process: Worker, claim: Claim, expiration: Expiration, row: Row) -> None:
        """Judge a row that is taken by silence."""
        fenced, (replica, began) = process.fenced, expiration.decided
        if fenced is None or not (process.alive or fenced.fence.lost) or not fenced.heard_back or claim.dropped:
            return
        # What it cannot see: beats that are taken and heard by nobody, and another one of its name.
        ear = id(replica.ear)
        former, last, again = process.heard_by.get(ear, NEVER)
        # The first beat behind such a time may still be on its way to who hears late.
        known = again - 2 * TTL if began - again < UNHEARD else former if last > began else last
        same_name = self._processes[process.name]
        unseen = fenced.unrouted.get(ear, -1e9) > known
        if unseen or process.beside or is_replaced(process, same_name, replica.ear):
            return
        # Nor that the hello of a former one is heard behind its first beat: then that one is the newer, dead or not.
        if any(has_replaced(one, process) for one in same_name if one.number < process.number):
            return
        # Nor that the verdict on a former one was under way when it began; what that left may be claimed anew.
        if same_name[0] is not process and process.first_heard.get(ear, began) > began - UNHEARD:
            return
        if row.id in expiration.remainder and claim.at > began:
            return
        self._checked["fence"] += 1
        margin = min(TTL / 5, (TTL - process.interval) / 2)
        left = fenced.fence.due_in(fenced.clock(self._world.now)) + margin
        since = fenced.fence.due_in(fenced.clock(self._world.now - margin + 0.01))
        if since > 0.0:
            self._wrong("fence", f"{process.incarnation} believes in {row.id}, or stops too late, by {left:.2f} s")

    def lost(self, process: Worker) -> None:
        """Judge that a worker stops."""
        self._checked["absent service"] += 1
        now = self._world.now
        since = now - WITHOUT_TROUBLE
        # That it is connected first is no trouble.
        moved_at = process.moved_at if process.moved_at > process.born_at else -1e9
        its = process.excused_until, moved_at, process.frozen_until
        theirs = [max(one.broken_at, one.went_on_at) for one in self._nats.servers]
        reachable = all(one.up and not one.paused for one in self._nats.servers)
        if max(*its, *theirs) < since and reachable and process.mouth.server is not None:
            self._wrong("absent service", f"{process.incarnation} is lost, and NATS has taken all its beats")
