"""The rules `budget`, `tie` and `poison` of `checker`: who is set aside has killed, and who kills is set aside.

By books of their own: which rows went back with which lives, as the checker sees it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from liveness.storms import LEAST
from tests.simulation.habits import WINDOW
from tests.simulation.history import Held
from tests.simulation.postgres import Expiration, Row
from tests.simulation.workers import Worker
from tests.simulation.world import World

CRASHES = {"lapsed", "stale", "restarted", "died"}
# Beyond so many times the budget what cannot be told apart goes, too.
MOST = 2
# A transaction dates all that it does by its beginning: so many seconds ago at most.
UNSURE = 12.0
Life = tuple[str, int]


class Budgets:
    """Watches what is set aside. `let_go` holds the lives that a storm has let go, `ends` how lives ended, by name."""

    def __init__(
        self,
        world: World,
        let_go: set[Life],
        ends: Mapping[str, Sequence[Expiration]],
        processes: Mapping[str, Sequence[Worker]],
        wrong: Callable[[str, str], None],
        checked: Counter[str],
    ) -> None:
        self._world, self._budget = world, world.habits.budget
        self._processes = processes
        self._let_go, self._ends = let_go, ends
        self._wrong = wrong
        self._checked = checked
        # The crashes of each piece of work: when, and of whom; and those that somebody is known to have caused.
        self._crashes: defaultdict[tuple[str, int], list[tuple[float, Life]]] = defaultdict(list)
        # The latter perhaps, and surely: the window's edge may lie between the dates of two rows of one life.
        self._explained: set[Life] = set()
        self._surely_explained: set[Life] = set()
        # Lives of which it is not known whether a storm has let them go.
        self.unsure: set[Life] = set()

    def taken(self, row: Row, end: Expiration) -> None:
        """Note that a row goes back, and judge whether that counts against it."""
        if end.crash and not self._is_crash(end):
            self._wrong("budget", f"row {row.id} goes back from a life that {end.reason}, which counts as a crash")
        if self._budget and self._is_crash(end):
            self._crashes[row.id, row.work].append((self._world.now, (end.worker, end.epoch)))

    def _is_crash(self, end: Expiration) -> bool:
        if end.reason not in CRASHES or (end.worker, end.epoch) in self._let_go:
            return False
        if end.reason == "stale":
            # As many as make a storm, found by one sweep, are no single piece of work's doing.
            one_sweep = [one for ends in self._ends.values() for one in ends if one.decided == end.decided]
            return sum(one.reason == "stale" for one in one_sweep) < LEAST
        return end.reason != "died" or not any(
            one.supervisor is not None and one.supervisor.asked
            for one in self._processes[end.worker]
            if one.incarnation == end.incarnation
        )

    def judged(self, held: Held, aside: set[Row]) -> None:
        """Judge what lives that have ended held, before it goes back, and what of it was set aside."""
        counts = {row: self._killed(row, end) if self._is_crash(end) else (0, 0) for end, row in held}
        for end, row in held:
            others = [counts[other] for former, other in held if former is end and other is not row]
            self._judge(row, counts[row], others, is_aside=row in aside)
        for end, row in held:
            if row in aside:
                life, crashes = (end.worker, end.epoch), self._crashes[row.id, row.work]
                self._explained.update([one for at, one in crashes if self._counts(at, UNSURE)], [life])
                self._surely_explained.update([one for at, one in crashes if self._counts(at, -UNSURE)], [life])

    def _judge(self, row: Row, killed: tuple[int, int], others: list[tuple[int, int]], *, is_aside: bool) -> None:
        least, most = killed
        if is_aside:
            self._checked["budget"] += 1
            if most < self._budget:
                self._wrong("budget", f"row {row.id} is set aside, and has killed {most}")
            self._checked["tie"] += 1
            if self._budget <= most < MOST * self._budget and any(surely >= most for surely, _ in others):
                self._wrong("tie", f"row {row.id} is set aside for {most}, and so many died of another one there")
        elif row.locked_until <= self._world.now and least:
            self._checked["poison"] += 1
            alone = all(perhaps < least for _, perhaps in others)
            if least >= MOST * self._budget or (least >= self._budget and alone):
                self._wrong("poison", f"row {row.id} has killed {least}, and goes back")

    def _killed(self, row: Row, end: Expiration) -> tuple[int, int]:
        """Return how many it has killed, with the one that has just died: surely, and perhaps."""
        now, crashes = (self._world.now, (end.worker, end.epoch)), self._crashes.get((row.id, row.work), ())
        counted = [*crashes, now]
        not_sure = self._explained | self.unsure
        surely = sum(self._counts(at, -UNSURE) and life not in not_sure for at, life in counted)
        return surely, sum(self._counts(at, UNSURE) and life not in self._surely_explained for at, life in counted)

    def _counts(self, at: float, unsure: float) -> bool:
        return at > self._world.now - WINDOW - unsure
