"""A model of Postgres: the host's tables and ours, transactions that commit or do not, and what the statements do.

A transaction begins, checks its term if it acts (and holds off the next term while it lasts), does everything at its
commit, and is then told, or not: it may fail before, during and after the commit. One whose process stands still is
ended by Postgres after a second. What the statements do is taken from `liveness/sql`, one method for each.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from liveness.errors import DatabaseAwayError, DatabaseRefusedError, NotLeaderError
from liveness.hearing import Hearing
from liveness.lease import Lease
from tests.simulation.habits import WINDOW
from tests.simulation.history import History
from tests.simulation.transaction import SLOW_SHARE, Transaction
from tests.simulation.world import Ask, World

if TYPE_CHECKING:
    from tests.simulation.leader import Leader


class Claim:
    """One claim of a row by a process, and how it ended."""

    __slots__ = ("at", "completed", "dropped", "process", "taken", "touched")

    def __init__(self, process: Any, at: float) -> None:
        self.process = process
        self.at = at
        self.touched = at
        self.completed = 0
        self.taken = 0
        # Its process has given up the life in which it claimed it, and lives on.
        self.dropped = False


class Row:
    """A piece of work. `crashes` is what `liveness.reclaim` has of those, and when."""

    __slots__ = ("claim", "crashes", "id", "locked_until", "mark", "owner", "poisonous", "status", "touched",
    "twin", "work")  # fmt: skip

    def __init__(self, number: int) -> None:
        self.id = str(number)
        self.status = "PENDING"
        self.owner: str | None = None
        self.touched = 0.0
        self.mark = 0
        self.locked_until = -1.0
        self.claim: Claim | None = None
        self.crashes: list[tuple[float, Expiration]] = []
        # It kills whoever runs it; and how often new work has come in its place.
        self.poisonous, self.work = False, 0
        # Who claims it claims that, too: they always travel together.
        self.twin: Row | None = None

    def touch(self, now: float) -> None:
        """Change it: its version is another one."""
        self.touched = now
        self.mark += 1


class Epoch:
    """One life, as the database knows it."""

    __slots__ = ("began_at", "ended_at", "epoch", "hello_uptime", "incarnation", "term", "ttl", "worker")

    def __init__(
        self, worker: str, epoch: int, incarnation: str | None, ttl: float, term: int | None, began_at: float
    ) -> None:
        self.worker = worker
        self.began_at = began_at
        self.epoch = epoch
        self.incarnation = incarnation
        self.ttl = ttl
        self.term = term
        self.ended_at: float | None = None
        self.hello_uptime: float | None = None

    def greeted(self, incarnation: str | None, uptime: float | None) -> None:
        """See update_lives.sql: keep the newest hello, which begins anew with another incarnation."""
        if None not in (incarnation, self.incarnation) and incarnation != self.incarnation:
            self.hello_uptime = uptime
        elif uptime is not None:
            self.hello_uptime = max(uptime, self.hello_uptime or 0.0)


class Expiration:
    """Why an epoch ended, and what of it is not finished."""

    __slots__ = ("at", "crash", "decided", "epoch", "explained", "finished", "incarnation", "last_beat", "offlined",
    "reason", "recovered", "remainder", "worker")  # fmt: skip

    def __init__(self, worker: str, epoch: int, incarnation: str | None, reason: str, at: float) -> None:
        self.worker = worker
        self.epoch = epoch
        self.incarnation = incarnation
        self.reason = reason
        self.at = at
        # Whether it counts against work, and somebody is known to have killed it.
        self.crash = self.explained = False
        self.last_beat: float | None = None
        # Whose transaction it was, and when that was asked for.
        self.decided: tuple[Any, float] = (None, 0.0)
        self.remainder: dict[str, int] = {}
        self.offlined = False
        self.finished = False
        self.recovered = False


class Process(Protocol):
    """What the database asks of whoever talks to it."""

    dead: bool
    paused: bool
    hearing: Hearing

    def when_awake(self, act: Callable[[], None]) -> None:
        """Do it now, or when the process goes on."""


class Postgres:
    """The database. `on_take` and `on_end` are the checker's."""

    def __init__(self, world: World, rows: int) -> None:
        self.world = world
        self.up = True
        self.read_only = False
        # Seconds that a transaction takes at most.
        self.slowness = 0.0
        # The chance that it waits for its connection then, before it begins.
        self.waits = SLOW_SHARE
        # The chance that one fails: before, during, after its commit.
        self.flaky = 0.0
        # A name that a statement of ours cannot handle.
        self.poison: str | None = None
        # The name whose next end is committed and not told.
        self.untold: str | None = None
        self.lost_answer = False
        self.rows = {str(number): Row(number) for number in range(rows)}
        self.open: dict[str, Epoch] = {}
        self.epochs: dict[str, list[Epoch]] = defaultdict(list)
        self.expirations: dict[str, list[Expiration]] = defaultdict(list)
        # Those that are not finished.
        self.left: set[Expiration] = set()
        self.registry: dict[str, tuple[str, float]] = {}
        self.outbox: dict[int, tuple[str, str, str, int]] = {}
        self.committed: dict[int, str] = {}
        self.term, self.holder, self.renewed_at = 0, "", -1e9
        self.acting: dict[int, int] = {}
        self.commits = self.refusals = 0
        self.deciding: tuple[Any, float] = (None, 0.0)
        # And which hearing time was proven then.
        self.proven = 0.0
        # Of each event: whose, and by which transaction.
        self.written: dict[int, tuple[str, int]] = {}
        self._sequence = 0
        self._transactions = 0
        self.on_take: Callable[..., None] = lambda *_: None
        self.on_end: Callable[..., None] = lambda *_: None
        self.on_act: Callable[[int], None] = lambda _: None
        self.on_leak: Callable[[Row, Claim], None] = lambda *_: None
        self.history = History(world.habits.budget, WINDOW)

    # What the host's workers do.

    @property
    def writable(self) -> bool:
        """Whether anybody can change anything."""
        return self.up and not self.read_only

    def claim(self, process: Any) -> Row | None:
        """Let a process claim the first PENDING row."""
        if not self.writable:
            return None
        return next((row for row in self.rows.values() if self.claim_row(row, process)), None)

    def claim_row(self, row: Row, process: Any) -> bool:
        """Let a process claim that row, if it is PENDING and nobody locks it."""
        now = self.world.now
        if row.status != "PENDING" or row.locked_until > now:
            return False
        row.status, row.owner = "RUNNING", process.name
        row.claim = Claim(process, now)
        row.touch(now)
        return True

    def complete(self, row: Row, claim: Claim) -> bool | None:
        """Let a process finish a claim: True, or False if the row is not its own any more; None: not now."""
        if not self.writable or row.locked_until > self.world.now:
            return None
        if row.status != "RUNNING" or row.claim is not claim or row.owner != claim.process.name:
            return False
        claim.completed += 1
        # New work comes in its place.
        row.status, row.owner, row.claim = "PENDING", None, None
        row.crashes.clear()
        row.work += 1
        row.touch(self.world.now)
        return True

    # Transactions.

    async def transact(self, process: Process, leader: "Leader", body: Callable[[float], Any], *, acts: bool) -> Any:
        """Do what a duty awaits: a transaction that does `body(now)` at its commit."""
        if self.flaky or self.slowness or not self.up or process.paused or process.dead:
            return await Ask(lambda resume: Transaction(self, process, leader, body, acts=acts, resume=resume).begin())
        # When all is well, most commit in the moment in which they begin: the same as in `Transaction`, spelled out,
        # for this is done often.
        if acts and not self.holds(leader):
            raise NotLeaderError("not the leader")
        self._transactions += 1
        leader.term_at_begin = leader.term or 0
        if acts and self.world.random.random() < SLOW_SHARE:
            return await Ask(lambda resume: Transaction(self, process, leader, body, acts=acts, resume=resume).linger())
        if acts and self.read_only:
            raise DatabaseAwayError("gone")
        self.deciding, self.proven = (process, self.world.now), process.hearing.now
        value = self.commit(leader, body, self.world.now, acts=acts)
        if self.lost_answer:
            self.lost_answer = False
            raise DatabaseAwayError("lost the answer")
        return value

    def commit(self, leader: "Leader", body: Callable[[float], Any], began: float, *, acts: bool) -> Any:
        """Do what a transaction does. Raises DatabaseRefusedError."""
        try:
            value = body(began)
        except DatabaseRefusedError:
            self.refusals += 1
            raise
        self.commits += 1
        if acts:
            self.on_act(leader.term_at_begin)
        return value

    def holds(self, leader: "Leader") -> bool:
        """Say whether its term is the current one."""
        if leader.term is not None and (leader.term != self.term or self.holder != leader.holder):
            leader.term = None
        return leader.term is not None

    # What our statements do: see the file of each name in liveness/sql.

    @property
    def latest_transaction(self) -> int:
        """The number of the transaction that began last."""
        return self._transactions

    def next_transaction(self) -> int:
        """Return the number of the next transaction."""
        self._transactions += 1
        return self._transactions

    def next_sequence(self) -> int:
        """Return a number that grows."""
        self._sequence += 1
        return self._sequence

    def tell(self, kind: str, subject: str, worker: str, transaction: int) -> None:
        """Write an event into the outbox."""
        number = self.next_sequence()
        self.outbox[number] = (kind, subject, worker, transaction)
        self.committed[number] = f"{kind} {subject}"
        self.written[number] = (worker, transaction)

    def new_epoch(self, worker: str, incarnation: str | None, ttl: float, term: int | None) -> Epoch:
        """Open an epoch."""
        epoch = Epoch(worker, self.next_sequence(), incarnation, ttl, term, self.world.now)
        self.open[worker] = epoch
        self.epochs[worker].append(epoch)
        return epoch

    def is_over(self, lease: Lease) -> bool:
        """Say whether this lease has an epoch that is not open any more."""
        if lease.epoch is None:
            return False
        return lease.worker not in self.open or self.open[lease.worker].epoch != lease.epoch

    def end(self, epoch: Epoch, reason: str, incarnation: str | None, now: float) -> Expiration:
        """End an epoch."""
        del self.open[epoch.worker]
        if epoch.worker == self.untold:
            self.untold, self.lost_answer = None, True
        epoch.ended_at = now
        expiration = Expiration(epoch.worker, epoch.epoch, incarnation, reason, now)
        expiration.decided = self.deciding
        self.expirations[epoch.worker].append(expiration)
        self.on_end(epoch, reason)
        if reason != "orphaned":
            kind = "worker.released" if reason == "released" else "worker.expired"
            self.tell(kind, epoch.worker, epoch.worker, self._transactions)
        return expiration

    def put_back(self, row: Row, expiration: Expiration, now: float) -> None:
        """Put a row back into the queue."""
        claim = row.claim
        self.on_take(row, claim, expiration)
        if expiration.crash:
            row.crashes.append((now, expiration))
        self._free(row, "PENDING", now)
        self.tell("workflow.reclaimed", row.id, expiration.worker, self._transactions)

    def set_aside(self, row: Row, expiration: Expiration, now: float) -> None:
        """Set a row aside that has killed too often."""
        self.history.explain(row, expiration, now)
        self._free(row, "FAILED", now)
        self.tell("workflow.quarantined", row.id, expiration.worker, self._transactions)

    def put_back_leaked(self, row: Row, now: float) -> None:
        """Put a single row back that its living owner does not list."""
        worker = row.owner or ""
        if row.claim is not None:
            self.on_leak(row, row.claim)
        self._free(row, "PENDING", now)
        self.tell("workflow.reclaimed", row.id, worker, self._transactions)

    def _free(self, row: Row, status: str, now: float) -> None:
        if row.claim is not None:
            row.claim.taken += 1
        row.status, row.owner, row.claim = status, None, None
        row.touch(now)

    def is_nameless(self, claim: Claim) -> bool:
        """Say whether it was claimed when no epoch of the name was open, but for the last one."""
        lives = self.epochs[claim.process.name][:-1]
        return not any(one.ended_at is None or one.ended_at > claim.at for one in lives)

    def held_by(self, worker: str) -> list[Row]:
        """Return the RUNNING rows of a name."""
        return [row for row in self.rows.values() if row.status == "RUNNING" and row.owner == worker]

    def unfinished(self) -> list[Expiration]:
        """Return the reclaims that are not finished."""
        return [one for some in self.expirations.values() for one in some if not one.finished] if self.left else []

    def note_left(self, one: Expiration) -> None:
        """Note whether anything of it is left to finish."""
        one.finished = not one.remainder
        if one.finished:
            self.left.discard(one)
        else:
            self.left.add(one)

    def refuse(self, names: Sequence[str] | Mapping[str, Any]) -> None:
        """Raise DatabaseRefusedError if the poisoned name is among these."""
        if self.poison is not None and self.poison in names:
            raise DatabaseRefusedError("poison")
