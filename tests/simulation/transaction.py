"""One transaction of the model of Postgres (see `postgres`), where not all is well, or time passes in it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from liveness.errors import DatabaseAwayError, DatabaseRefusedError, NotLeaderError

if TYPE_CHECKING:
    from tests.simulation.leader import Leader
    from tests.simulation.postgres import Postgres, Process

# Seconds after which Postgres ends one that is idle.
IDLE_SECONDS = 1.0
# Of acting transactions, so many take some hundredths of a second in which other things happen.
SLOW_SHARE = 0.3


class Transaction:
    """One transaction, from its beginning to the answer that its process gets, or does not get."""

    def __init__(
        self,
        postgres: "Postgres",
        process: "Process",
        leader: "Leader",
        body: Callable[[float], Any],
        *,
        acts: bool,
        resume: Callable[[Any, BaseException | None], None],
    ) -> None:
        self.postgres, self.process, self.leader = postgres, process, leader
        self.body, self.acts, self.resume = body, acts, resume
        # When it was asked for, which is when its cases were decided, and when it began.
        self.asked = self.began = postgres.world.now
        self.proven = process.hearing.now
        self.failing = ""
        self.number = 0

    def begin(self) -> None:
        """Begin, perhaps when there is a connection for it, and commit some time later."""
        postgres, random = self.postgres, self.postgres.world.random
        if postgres.slowness and random.random() < postgres.waits:
            postgres.world.after(random.uniform(0.0, postgres.slowness), lambda: self.process.when_awake(self._begin))
        else:
            self._begin()

    def _begin(self) -> None:
        postgres, random = self.postgres, self.postgres.world.random
        if self.process.dead:
            return
        self.began = postgres.world.now
        if postgres.flaky and random.random() < postgres.flaky:
            self.failing = random.choice("bda")
        if not postgres.up or self.failing == "b":
            postgres.world.after(0.05, lambda: self._answer(None, DatabaseAwayError("away")))
            return
        if self.acts and not postgres.holds(self.leader):
            self._answer(None, NotLeaderError("not the leader"))
            return
        self.number = postgres.next_transaction()
        if self.acts:
            postgres.acting[self.number] = self.leader.term or 0
        self.leader.term_at_begin = self.leader.term or 0
        takes = random.uniform(0.0, postgres.slowness) if postgres.slowness else 0.0
        if takes or (self.acts and random.random() < SLOW_SHARE):
            postgres.world.after(takes or random.uniform(0.01, 0.4), self._commit)
        else:
            self._commit()

    def linger(self) -> None:
        """Commit some time later, as one that acts and has begun: the latest that did."""
        postgres = self.postgres
        self.number = postgres.latest_transaction
        postgres.acting[self.number] = self.leader.term or 0
        postgres.world.after(postgres.world.random.uniform(0.01, 0.4), self._commit)

    def _answer(self, value: Any, error: BaseException | None) -> None:
        if not self.process.dead:
            self.process.when_awake(lambda: self.resume(value, error))

    def _commit(self) -> None:
        postgres = self.postgres
        if self.process.paused and not self.process.dead:
            # Idle in its transaction.
            postgres.world.after(IDLE_SECONDS, lambda: postgres.acting.pop(self.number, None))
            self._answer(None, DatabaseAwayError("terminated"))
            return
        postgres.acting.pop(self.number, None)
        if self.process.dead:
            return
        if not postgres.up or self.failing == "d" or (self.acts and postgres.read_only):
            self._answer(None, DatabaseAwayError("gone"))
            return
        postgres.deciding, postgres.proven = (self.process, self.asked), self.proven
        try:
            value = postgres.commit(self.leader, self.body, self.began, acts=self.acts)
        except DatabaseRefusedError as error:
            self._answer(None, error)
            return
        lost, postgres.lost_answer = postgres.lost_answer or self.failing == "a", False
        self._answer(value, DatabaseAwayError("lost the answer") if lost else None)
