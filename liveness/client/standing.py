"""How a worker stands, as its own process may ask: the same for both flavours of a heartbeater, and in any thread."""

import contextlib
import math
from typing import Final, NamedTuple
from uuid import UUID

from liveness.client.beats import Beats
from liveness.client.connection import Connection
from liveness.client.forks import Home
from liveness.client.holding import Holding
from liveness.client.identity import Identity
from liveness.client.life import Life
from liveness.client.lookout import Lookout
from liveness.client.problems import Problems


class Parts(NamedTuple):
    """What a heart is made of."""

    who: Identity
    home: Home
    problems: Problems
    connection: Connection
    lookout: Lookout
    life: Life
    holding: Holding
    beats: Beats


class Standing:
    """What `Heartbeater` and `SyncHeartbeater` answer, by the clock of the moment.

    In a process that was forked off, all of it but who it was raises RuntimeError.
    """

    def __init__(self, parts: Parts) -> None:
        self.worker: Final = parts.who.worker
        self.incarnation: Final = parts.who.incarnation
        self.adopted: Final = parts.who.adopted
        """Whether somebody else beats for this process, and this only listens."""
        self.ttl: Final = parts.beats.ttl
        self.__parts = parts

    def _require(self) -> None:
        """Raise RuntimeError in a process that was forked off."""
        self.__parts.home.require()

    @property
    def _parts(self) -> Parts:
        self._require()
        return self.__parts

    @property
    def _forked(self) -> bool:
        return self.__parts.home.forked

    @property
    def beats_sent(self) -> int:
        """How many beats NATS has taken."""
        return self._parts.beats.taken

    @property
    def connected(self) -> bool:
        """Whether there is a connection to NATS just now."""
        return self._parts.connection.link is not None

    @property
    def last_problem(self) -> str | None:
        """The last thing that went wrong with the heartbeat, also when it goes well again; None if nothing did."""
        return self._parts.problems.last

    @property
    def interval(self) -> float:
        """Seconds between two beats; fewer than stated where the service grants a ttl for which that is too long."""
        return self._parts.lookout.pace.interval

    @property
    def margin(self) -> float:
        """Seconds from being lost to the end of the ttl."""
        return self._parts.lookout.pace.margin

    @property
    def epoch(self) -> int | None:
        """The fencing token of this life, once the service has told it; it changes when a life is over."""
        return self._parts.life.epoch

    @property
    def refusal(self) -> str | None:
        """Why the hello was refused: a newer process bears the name, and this one had better stop."""
        return self._parts.life.refusal

    @property
    def superseded_epoch(self) -> int | None:
        """The epoch that is over."""
        return self._parts.life.superseded_epoch

    @property
    def loss(self) -> str | None:
        """Why it is lost."""
        return self._parts.lookout.loss

    @property
    def remaining(self) -> float:
        """Seconds until it is lost, by the clock of this moment: 0 before the first beat is taken, and once it leaves.

        Infinite where it is `adopted` and not given up: whoever beats for it stops it.
        """
        lookout = self._parts.lookout
        return math.inf if self.adopted and not lookout.lost.is_set() else lookout.remaining

    @property
    def grace(self) -> float:
        """Seconds until the work may be given away: what is left to stop in. 0 when it may be, or was."""
        parts = self._parts
        return 0.0 if parts.life.superseded.is_set() else math.inf if self.adopted else parts.lookout.grace

    @property
    def held(self) -> tuple[str, ...]:
        """The ids of the work that is held by `holding`."""
        return self._parts.holding.held

    @property
    def draining(self) -> bool:
        """Whether nothing is begun any more: claim nothing."""
        return self._parts.holding.draining

    @property
    def identity(self) -> dict[str, str]:
        """What a process that works under this name has in its environment; the epoch if it is known."""
        return Identity(self.worker, self.incarnation, self.epoch, self.adopted).environment

    def check(self, seconds: float = 0.0) -> None:
        """Raise LostError unless more than so many `seconds` remain: to be asked before what cannot be undone."""
        self._parts.lookout.check(seconds, self.remaining)

    def holding(self, work_id: str | UUID) -> contextlib.AbstractContextManager[None]:
        """Hold a piece of work in a `with`: the beats tell it (`running`), and `drain` waits for it.

        For all work or for none, and from its claim on: what the beats leave out counts as not held. Beyond 16 KiB of
        ids they say nothing of it, nor does who beats for an adopted one. Raises DrainingError once it drains, and
        ValueError for an id that cannot be told.
        """
        return self._parts.holding.piece(work_id)

    def progressed(self) -> None:
        """Count that something got done; the beats tell it (`progress`)."""
        self._parts.holding.progressed()
