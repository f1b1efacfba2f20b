"""When a transaction began, by the loop's clock: what Postgres reckons every age in it back from."""

import math
from typing import Final

import msgspec

from liveness.verdicts import Case

# It is asked until that is known to so many seconds, and so often at most: the answer may be slow.
EXACT_SECONDS: Final = 0.05
ASKED_MOST: Final = 3


class Began:
    """Between which loop times (`earliest`, `latest`) a transaction began that was asked for at `wanted`."""

    def __init__(self, wanted: float) -> None:
        self.latest = math.inf
        self._earliest = self._wanted = wanted

    @property
    def earliest(self) -> float:
        """Where the answers contradict each other, the latest time is believed."""
        return min(self._earliest, self.latest)

    @property
    def is_exact(self) -> bool:
        """Whether it is known well enough to reckon by."""
        return self.latest - self._earliest <= EXACT_SECONDS

    def learn(self, seconds: float, *, asked: float, answered: float) -> None:
        """Take in that at some time between the two it was `seconds` ago, by the database's clock."""
        self._earliest = max(self._earliest, asked - seconds)
        # Never before it was asked for, whatever that clock was set to in between.
        self.latest = max(min(self.latest, answered - seconds), self._wanted)


def aged(case: Case, began: Began) -> Case:
    """Return the case as it would have been measured when the transaction began."""
    if case.measured_at is None:
        return case
    # What another process has touched must not be reached into. But what the one that has ended touched last may be as
    # near to the word of it as a message's way, and if it were left, nobody would look for it soon.
    passed = max((began.earliest if case.told else began.latest) - case.measured_at, 0.0)

    def older(seconds: float | None) -> float | None:
        return None if seconds is None else seconds + passed

    return msgspec.structs.replace(
        case,
        silent_for=older(case.silent_for),
        overdue=older(case.overdue),
        untouched_for=older(case.untouched_for),
    )
