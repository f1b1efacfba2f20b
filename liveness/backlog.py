"""The duty that knows how much news waits in the outbox, for whoever measures the service.

Nearly always none does, and then the relay has just seen so: Postgres is asked only while it has not.
"""

from collections.abc import Callable

from liveness.relay import Relay
from liveness.store import Store


class Backlog:
    """How many events wait, and for how many seconds the oldest has. `clock` is the loop's monotonic time."""

    def __init__(self, *, relay: Relay, store: Store, clock: Callable[[], float]) -> None:
        self._relay = relay
        self._store = store
        self._clock = clock
        self._events = 0
        # Loop time: when the oldest of them was written.
        self._since = 0.0

    @property
    def events(self) -> int:
        """How many waited when that was looked at last."""
        return 0 if self._relay.emptied else self._events

    @property
    def oldest(self) -> float:
        """For how many seconds the oldest of them has waited by now, as far as is known."""
        return max(self._clock() - self._since, 0.0) if self.events else 0.0

    async def run_once(self) -> int:
        """Ask, unless the relay has seen the end of the outbox; return how many wait. Raises DatabaseAwayError."""
        if self._relay.emptied:
            self._events = 0
        else:
            asked_at = self._clock()
            self._events, oldest = await self._store.outbox.depth()
            self._since = asked_at - oldest
        return self.events
