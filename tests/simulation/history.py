"""The model of `liveness.reclaim` and of who killed whom: crashes behind work, and work that is set aside for them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from liveness import budgets
from liveness.budgets import Suspect

if TYPE_CHECKING:
    from tests.simulation.postgres import Expiration, Row

# See store/budgets.py.
JUDGED_MOST = 2_000
Held = Sequence[tuple["Expiration", "Row"]]


class History:
    """The crashes. `on_judged` is the checker's: what the ended lives held, and what of it was set aside."""

    def __init__(self, budget: int, window: float) -> None:
        self.budget, self.window = budget, window
        self.on_judged: Callable[[Held, set[Row]], None] = lambda *_: None

    def judge(self, held: Held, now: float) -> set["Row"]:
        """Return what is to be set aside, before it goes back: see find_suspects.sql and quarantine.sql."""
        suspects = [
            Suspect(
                id=row.id, kind=None, queue=None, worker=end.worker, epoch=end.epoch, reclaim_count=0,
                crash_count=1 + self.crashes_of(row, now), suspects=0,
            )
            for end, row in held
            if end.crash
        ]  # fmt: skip
        suspects.sort(key=lambda suspect: -suspect.crash_count)
        if not suspects or suspects[0].crash_count < self.budget:
            return set()
        blamed = {one.id for one in budgets.guilty(budgets.whole(suspects, JUDGED_MOST), self.budget)}
        return {row for end, row in held if end.crash and row.id in blamed}

    def crashes_of(self, row: "Row", now: float) -> int:
        """Return how many crashes count against it."""
        return sum(at > now - self.window and not end.explained for at, end in row.crashes)

    def explain(self, row: "Row", end: "Expiration", now: float) -> None:
        """Put its deaths down to it."""
        for at, former in [*row.crashes, (now, end)]:
            if at > now - self.window:
                former.explained = True
