"""When a transaction began, by the loop's clock: what Postgres reckons every age in it back from."""

import math
from typing import Final

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
