"""The rules of the event stream, kept for the checker: it says what was committed, all of it, in order."""

from collections import Counter
from collections.abc import Callable

from liveness.publishing import Event
from tests.simulation.postgres import Postgres


class News:
    """Watches the events of one schedule. `wrong` takes a rule and a sentence, `checked` counts."""

    def __init__(self, postgres: Postgres, wrong: Callable[[str, str], None], checked: Counter[str]) -> None:
        self._postgres = postgres
        self._wrong = wrong
        self._checked = checked
        self._published: set[int] = set()
        self._last: dict[str, int] = {}

    def published(self, event: Event) -> None:
        """Judge an event that the stream has taken."""
        self._checked["event without commit"] += 1
        number = int(event.id)
        if number not in self._postgres.committed:
            self._wrong("event without commit", f"event {number}")
            return
        if number not in self._published:
            worker, transaction = self._postgres.written[number]
            self._checked["event order"] += 1
            if worker and transaction < self._last.get(worker, 0):
                self._wrong("event order", f"event {number} of {worker} comes behind a later one")
            self._last[worker] = max(transaction, self._last.get(worker, 0))
        self._published.add(number)

    def finish(self) -> None:
        """Judge what is left at the end."""
        self._checked["commit without event"] += 1
        for number, what in self._postgres.committed.items():
            if number not in self._published:
                self._wrong("commit without event", f"{number} {what}")
