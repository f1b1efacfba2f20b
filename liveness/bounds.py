"""The duty that tells of bounds that are hit, and lets in whom Postgres knows while strangers are turned away.

What is beyond a bound is counted where it is met, and told here: one line a minute and bound, however many messages it
was. While strangers are turned away, Postgres is asked every few seconds who may live and is not in the book (one
statement, as at a start); and while they come in crowds, which of them it knows by now. At all other times nothing is
asked. Every replica does so: each has a book of its own to keep.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
import structlog

from liveness.admission import PAYLOAD_MOST, Admission
from liveness.errors import DatabaseRefusedError
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.measures import BOUNDS
from liveness.reports import Reports
from liveness.settings import Settings
from liveness.store import Store

log = structlog.get_logger("liveness.bounds")

# Between two lines about one bound; and for so long it counts as hit (seconds).
TELL_SECONDS: Final = 60.0
# Between two questions whom Postgres knows; and so many times what the last one took, so that it has time for the rest.
INVITE_SECONDS, INVITE_SHARE = 5.0, 10.0
# Strangers that it is asked about in a round.
ASKED_AT_ONCE: Final = 2_000


class Hit(msgspec.Struct):
    """What is known of a bound that was hit. Loop time; `seen` is the count at the last look, `told` at the last line.

    A bound counts as hit until `TELL_SECONDS` have passed since `at`.
    """

    at: float
    seen: int = 0
    told: int = 0
    told_at: float | None = None


class Looked(msgspec.Struct):
    """What one round did: names that are invited, and strangers whom Postgres knew."""

    invited: int = 0
    acquainted: int = 0


class Bounds:
    """Looks at what is beyond its bounds. `counts` are the intake's; `clock` is the loop's monotonic time."""

    def __init__(
        self,
        *,
        admission: Admission,
        book: LeaseTable,
        hearing: Hearing,
        counts: Counter[str],
        reports: Reports,
        store: Store,
        settings: Settings,
        clock: Callable[[], float],
    ) -> None:
        self._admission = admission
        self._book = book
        self._hearing = hearing
        self._counts = counts
        self._reports = reports
        self._store = store
        self._clock = clock
        self._hits: dict[str, Hit] = {}
        self._invite_at = 0.0
        self._says: Mapping[str, str] = {
            "workers": f"names that Postgres does not know were turned away: there are {settings.max_workers} leases "
            "(max_workers), and more only for those that it knows",
            "grants": f"names that Postgres does not know were turned away: more than {settings.max_grants:g} new ones "
            "a second came (max_grants)",
            "payload": f"messages were longer than {PAYLOAD_MOST} bytes: such a beat counts as one that says nothing, "
            "and such a hello or goodbye as none",
            "running": "lists of running work were too long, alone or all together, and count as none",
            "ttl": f"ttls were stated beyond {settings.min_ttl:g} to {settings.max_ttl:g} s (min_ttl, max_ttl), and "
            "count as the nearest of these",
            "hellos_waiting": "hellos were not taken, as too many wait for their answer; their workers ask again",
        }

    def count(self, bound: str) -> int:
        """Return how often `bound` was hit since the start."""
        return self._reports.refused if bound == "running" else self._counts[f"beyond_{bound}"]

    def hit(self) -> list[str]:
        """Return a line for each bound that was hit lately."""
        now = self._clock()
        self._notice(now)
        return [
            f"{bound}: {self._says[bound]}; {hit.seen} since the start"
            for bound, hit in self._hits.items()
            if now - hit.at < TELL_SECONDS
        ]

    async def run_once(self) -> Looked:
        """Tell of bounds, and ask whom Postgres knows while that matters. Raises DatabaseAwayError."""
        self._tell()
        done = Looked()
        arrival = self._clock()
        if not self._admission.is_inviting(self._hearing.now):
            self._admission.invite((), self._hearing.now)
        elif arrival >= self._invite_at:
            names = await self._store.epochs.expected()
            # Those that are in the book have been let in.
            self._admission.invite((name for name in names if self._book.get(name) is None), self._hearing.now)
            took = self._clock() - arrival
            self._invite_at = self._clock() + max(INVITE_SECONDS, INVITE_SHARE * took)
        done.invited = len(self._admission.invited)
        done.acquainted = await self._ask()
        return done

    async def _ask(self) -> int:
        names = self._admission.to_ask(ASKED_AT_ONCE, self._clock(), len(self._book))
        gone = [name for name in names if self._book.get(name) is None]
        self._admission.acquainted(gone)
        left = [name for name in names if self._book.get(name) is not None]
        if not left:
            return 0
        try:
            known = await self._store.epochs.known(left)
        except DatabaseRefusedError as error:
            # One name that it cannot even read. The others wait with it: it goes on with the next ones.
            log.warning("acquaintance_refused", cause=str(error))
            return 0
        self._admission.acquainted(known)
        return len(known)

    def _notice(self, now: float) -> None:
        for bound in BOUNDS:
            count = self.count(bound)
            if count and bound not in self._hits:
                self._hits[bound] = Hit(now)
            if bound in self._hits and count > self._hits[bound].seen:
                self._hits[bound].seen, self._hits[bound].at = count, now

    def _tell(self) -> None:
        now = self._clock()
        self._notice(now)
        for bound, hit in self._hits.items():
            if hit.seen > hit.told and (hit.told_at is None or now - hit.told_at >= TELL_SECONDS):
                log.warning("bound_hit", bound=bound, times=hit.seen - hit.told, complaint=self._says[bound])
                hit.told, hit.told_at = hit.seen, now
