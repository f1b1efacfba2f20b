"""Before the verdict: a worker that answers probes is asked once, when its lease is about to lapse.

Any answer is a heartbeat. None proves nothing, and "no responders" as little: behind a NATS server that just died,
living workers answer nothing either. What was said goes into the evidence.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from liveness.lease import Lease
from liveness.leases import LeaseTable

# How long before its deadline a worker is asked (seconds): long enough for a busy one to find time for the answer,
# short enough that one which beats as it promised is never asked.
LEAD_LEAST, LEAD_MOST = 0.5, 1.0
# Without an answer for so long (seconds of hearing), it is suspect: a usual answer takes a millisecond.
PATIENCE = 0.25

Ask = Callable[[str, Callable[[bytes | None], None]], bool]


class Asked(msgspec.Struct):
    """One question: for which promise, and what came of it."""

    since: float
    at: float
    said: str = "no answer"
    failed: bool = False


class Probes:
    """Asks. `ask(worker, on_answer)` publishes a probe; on_answer gets the reply, or None for "no responders".

    `on_failure(worker)` is told of one that nobody answered.
    """

    def __init__(
        self,
        *,
        book: LeaseTable,
        ask: Ask,
        on_answer: Callable[[str, bytes], None],
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.asked = 0
        self._on_failure = on_failure
        self._book = book
        self._ask = ask
        self._on_answer = on_answer
        self._open: dict[str, Asked] = {}

    def ask(self, now: float) -> None:
        """Ask whoever answers probes and is about to lapse. `now` in hearing time."""
        for worker, asked in list(self._open.items()):
            lease = self._book.get(worker)
            if lease is None or lease.since != asked.since:
                del self._open[worker]
            elif asked.said == "no responders" or (asked.said == "no answer" and now - asked.at >= PATIENCE):
                self._fail(worker, asked)
        # A list first: an answer changes the lines.
        for lease in [lease for lease in self._book.lines.due_within(now, lead) if lease.probe]:
            lease.probe = False
            self.asked += 1
            asked = self._open[lease.worker] = Asked(lease.since, now)
            if not self._ask(lease.worker, self._taking(lease.worker, asked)):
                asked.said = "could not be asked"

    def note(self, lease: Lease) -> None:
        """Add what a probe said to the evidence on a lease that has lapsed."""
        asked = self._open.pop(lease.worker, None)
        if asked is not None and lease.ending is not None:
            details: dict[str, Any] = lease.ending.details or {}
            lease.ending.details = details | {"probe": asked.said}

    def _fail(self, worker: str, asked: Asked) -> None:
        if not asked.failed:
            asked.failed = True
            self._on_failure(worker)

    def _taking(self, worker: str, asked: Asked) -> Callable[[bytes | None], None]:
        def take(answer: bytes | None) -> None:
            if answer is None:
                asked.said = "no responders"
            else:
                self._on_answer(worker, answer)

        return take


def lead(ttl: float) -> float:
    """Return how many seconds before the end of a promise of `ttl` seconds a worker is asked."""
    return min(max(ttl / 4, LEAD_LEAST), LEAD_MOST, ttl / 2)
