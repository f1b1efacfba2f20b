"""When a leader that is deaf for good has given the lead away: until then dead work waits, and not all is well."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.checker import Checker
    from tests.simulation.world import World

# Seconds: DEAF_LOOKS of a leader, and what the next one needs.
GIVEN_AWAY = 75.0


class GivingAway:
    """Moves the checker's `calm_at` behind it. Replicas by their names."""

    def __init__(self, world: "World", checker: "Checker") -> None:
        self._world, self._checker = world, checker
        self._over_at: dict[str, float] = {}
        self._goes_on_at: dict[str, float] = {}

    def begin(self, replica: str) -> None:
        """Note that it is deaf from now on."""
        looks_from = max(self._world.now, self._goes_on_at.get(replica, 0.0))
        self._until(replica, looks_from + GIVEN_AWAY)

    def stands_still(self, replica: str, seconds: float) -> None:
        """Note that it stands still for so long: it counts its looks, and makes none meanwhile."""
        self._goes_on_at[replica] = self._world.now + seconds
        if (over_at := self._over_at.get(replica, 0.0)) > self._world.now:
            self._until(replica, over_at + seconds)

    def _until(self, replica: str, moment: float) -> None:
        self._over_at[replica] = moment
        self._checker.calm_at = max(self._checker.calm_at, moment)
