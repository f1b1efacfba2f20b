"""Who outlives a worker's process, as `liveness run` does, and says how it ended: a certificate."""

from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from tests.simulation.nats import Ear, Mouth

if TYPE_CHECKING:
    from tests.simulation.workers import Worker

# Seconds until it has seen the end.
SEEN = (0.0, 0.3)
# Supervisors that say it by another connection than that of the beats: it may overtake one.
APART_SHARE = 0.5
# Ends that somebody asked for, which are no crashes.
ASKED_SHARE = 0.2
ASKED: tuple[dict[str, int], ...] = ({"signal": 15}, {"exit_code": 143})
KILLED: tuple[dict[str, int], ...] = ({"signal": 9}, {"exit_code": 137}, {"exit_code": 1})


class Supervisor:
    """Sees one process end. `asked` says whether somebody wanted that."""

    def __init__(self, worker: "Worker") -> None:
        self.worker = worker
        self.asked = False
        # By ear: when the certificate was put into its socket.
        self.certified: dict[int, float] = {}
        # Whoever kills the process may leave its connection, which is the supervisor's.
        self.apart = worker.world.more_random.random() < APART_SHARE

    def ended(self, *, killed: bool) -> None:
        """See the process end: by what it ran or by SIGKILL (`killed`), or by whatever else."""
        world, random = self.worker.world, self.worker.world.more_random
        self.asked = not killed and random.random() < ASKED_SHARE
        how = random.choice(ASKED if self.asked else KILLED)
        world.after(random.uniform(*SEEN), partial(self._say, how))

    def _say(self, how: dict[str, Any]) -> None:
        worker = self.worker
        mouth = worker.mouth
        if self.apart:
            mouth = Mouth(-worker.number, 0.0)
            mouth.server = worker.last_server
        mouth.on_accepted = self._accepted
        said = msgspec.json.encode({"incarnation": worker.incarnation, **how})
        worker.world.tell(f"the supervisor of {worker.incarnation} says {said.decode()}")
        # A word by which all promises to it are over, as its own would be.
        worker.said_goodbye = worker.nats.publish(mouth, f"liveness.goodbye.{worker.name}", said)

    def _accepted(self, subject: str, ears: list[Ear], sent: float) -> None:
        if subject[9] == "g":
            now = self.worker.world.now
            for ear in ears:
                self.certified.setdefault(id(ear), now)
        else:
            # A beat that was under way.
            self.worker.accepted(subject, ears, sent)
