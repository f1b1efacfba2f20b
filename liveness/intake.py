"""The way in: a heartbeat comes from the bus and renews a lease. No database, no await.

Whatever its bytes, a heartbeat is a beat of the worker in its subject: it lives. A goodbye is different: it takes
work, so it must be legible and name the incarnation that it ends.
"""

from collections import Counter
from collections.abc import Callable

import structlog

from liveness.errors import MessageError
from liveness.hearing import Hearing
from liveness.leases import Heard, LeaseTable
from liveness.messages import decode_goodbye, decode_heartbeat
from liveness.settings import Settings
from liveness.subjects import Subjects, name_fault

log = structlog.get_logger("liveness.intake")

# A complaint is logged once per worker; for this many workers, so that invented names cannot fill the memory.
COMPLAINTS_REMEMBERED = 10_000


class Intake:
    """Takes heartbeats and goodbyes to the book.

    `clock` is the loop's monotonic time. `on_new` is called when a life began that wants an epoch, or something of a
    life changed that Postgres should know; `on_ending` when a goodbye ended one.
    """

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        settings: Settings,
        clock: Callable[[], float],
        on_new: Callable[[], None],
        on_ending: Callable[[], None],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._book = book
        self._hearing = hearing
        self._clamp_ttl = settings.clamp_ttl
        self._subjects = Subjects(settings.subject_prefix)
        self._clock = clock
        self._on_new = on_new
        self._on_ending = on_ending
        self._complained: set[str] = set()

    def heartbeat(self, subject: str, payload: bytes, _reply: str = "") -> None:
        """Take one heartbeat in."""
        worker = self._subjects.worker_of(subject)
        self.counts["heartbeats"] += 1
        if self._book.get(worker) is None and (fault := name_fault(worker)):
            self._complain("unusable_name", worker, fault)
            return
        beat, complaint = decode_heartbeat(payload)
        if complaint is not None:
            self._complain("malformed", worker, complaint)
        ttl = None if beat.ttl is None else self._clamp_ttl(beat.ttl)
        heard = self._book.beat(worker, self._hearing.advance(self._clock()), beat.incarnation, ttl)
        if heard is Heard.REVIVED:
            self.counts["revived"] += 1
            log.info("lease_revived", worker=worker)
        if heard is Heard.STARTED or worker in self._book.changed:
            self._on_new()

    def goodbye(self, subject: str, payload: bytes, _reply: str = "") -> None:
        """Take one goodbye in."""
        worker = self._subjects.worker_of(subject)
        self.counts["goodbyes"] += 1
        try:
            goodbye = decode_goodbye(payload)
        except MessageError as error:
            self._complain("goodbye_malformed", worker, str(error))
            return
        details = {"exit_code": goodbye.exit_code, "signal": goodbye.signal} if goodbye.reason == "died" else None
        now = self._hearing.advance(self._clock())
        if self._book.release(worker, goodbye.incarnation, now, goodbye.reason, details):
            log.info("goodbye", worker=worker, reason=goodbye.reason)
            self._on_ending()
        else:
            # Of a life that is over already, or of another incarnation than the one that lives.
            self.counts["goodbyes_stale"] += 1
            log.info("goodbye_stale", worker=worker, incarnation=goodbye.incarnation)

    def _complain(self, kind: str, worker: str, complaint: str) -> None:
        self.counts[kind] += 1
        key = f"{kind}:{worker}"
        if key not in self._complained and len(self._complained) < COMPLAINTS_REMEMBERED:
            self._complained.add(key)
            log.warning(kind, worker=worker, complaint=complaint)
