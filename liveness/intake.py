"""The way in: a heartbeat comes from the bus and renews a lease. No database, no await.

Whatever its bytes, a heartbeat is a beat of the worker in its subject: it lives. A goodbye and a hello are different:
they take work, so they must be legible and name the incarnation that they speak of.

A name that has no lease yet may be turned away (`admission` has the rules), whatever it says. Nothing is done then but
to note for how long it said that it lives, and a hello is not answered: its worker asks again.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Callable

import msgspec
import structlog

from liveness.admission import PAYLOAD_MOST, Admission
from liveness.errors import MessageError, TurnedAwayError
from liveness.hearing import Hearing
from liveness.lease import Arrived, Heard, Lease, Proof
from liveness.leases import LeaseTable
from liveness.messages import Goodbye, Heartbeat, Hello, Superseded, decode_goodbye, decode_heartbeat, decode_hello
from liveness.reports import Reports
from liveness.settings import Settings
from liveness.storms import Storms
from liveness.subjects import OWN, name_fault
from liveness.wakes import Wakes

log = structlog.get_logger("liveness.intake")

# A complaint is logged once per worker; for this many workers, so that invented names cannot fill the memory.
COMPLAINTS_REMEMBERED = 10_000
# A former incarnation is told that it is over at most this often (seconds), however fast it beats.
TELL_SECONDS = 1.0
# Of one name there is a line at most this often (seconds) that it begins anew.
LINE_SECONDS = 1.0
# Ten years, in seconds. Postgres cannot subtract what some would state.
MOST_UPTIME = 315_360_000.0
# How long heartbeats that were not divided as we are are complained of.
STRAYS_SECONDS = 30.0
STRAYS = "NATS: not every server divides the heartbeats as the services are divided (see docs/scale.md)"
# To look a member of an Enum up costs as much as a call.
RENEWED, STALE = Heard.RENEWED, Heard.STALE


class Intake:
    """Takes heartbeats, hellos and goodbyes to the book.

    `clock` is the loop's monotonic time. `on_echo(token)` is called for what the service said to itself;
    `tell(subject, payload)` publishes at once.
    """

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        storms: Storms,
        settings: Settings,
        clock: Callable[[], float],
        wakes: Wakes,
        on_echo: Callable[[bytes], None] = lambda _: None,
        tell: Callable[[str, bytes], object] = lambda _subject, _payload: None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        # When a heartbeat came last that was not divided as we are, by the loop's clock.
        self.strayed_at: float | None = None
        # Who says which strangers are let in.
        self.admission = Admission()
        # Who keeps what beats say of their workers' work, if anybody does.
        self.reports: Reports | None = None
        self._book = book
        self._hearing = hearing
        self._storms = storms
        self._clamp_ttl = settings.clamp_ttl
        self._min_ttl, self._max_ttl = settings.min_ttl, settings.max_ttl
        self._subjects = settings.subjects
        self._clock = clock
        self._on_echo = on_echo
        self._wakes = wakes
        self._default_ttl = settings.heartbeat_timeout
        self._tell = tell
        self._told: dict[str, float] = {}
        # By name and kind of line: when it was written last, and how many were left out since.
        self._lines: dict[tuple[str, str], tuple[float, int]] = {}
        self._complained: defaultdict[str, set[str]] = defaultdict(set)

    def worker_of(self, subject: str) -> str:
        """Return the worker of whom a subject that we listen to speaks."""
        return self._subjects.worker_of(subject)

    def owns(self, worker: str) -> bool:
        """Say whether `worker` is of our share."""
        return self._subjects.owns(worker)

    def heartbeat(self, subject: str, payload: bytes, _reply: str = "") -> None:
        """Take one heartbeat in."""
        self._heartbeat(self._subjects.worker_of(subject), payload)

    def stray(self, subject: str, payload: bytes, _reply: str = "") -> None:
        """Take a heartbeat in that came by a server which does not divide them as we are divided.

        It is a good one all the same: whoever hears it must not think that its worker is silent.
        """
        worker = self._subjects.stray_worker(subject)
        if worker is None:
            return
        if not worker.startswith(OWN):
            self.counts["stray"] += 1
            now = self._clock()
            if self.strayed_at is None or now - self.strayed_at > STRAYS_SECONDS:
                log.error("stray_heartbeats", subject=subject, complaint=STRAYS)
            self.strayed_at = now
            if not self._subjects.owns(worker):
                return
        self._heartbeat(worker, payload)

    @property
    def strays(self) -> str | None:
        """What is to be said of heartbeats that were not divided as we are, if there were some lately."""
        if self.strayed_at is None or self._clock() - self.strayed_at > STRAYS_SECONDS:
            return None
        return STRAYS

    def _heartbeat(self, worker: str, payload: bytes) -> None:
        if worker.startswith(OWN):
            self._on_echo(payload)
            return
        self.counts["heartbeats"] += 1
        if len(payload) > PAYLOAD_MOST:
            self.counts["beyond_payload"] += 1
            payload = b""
        if self._book.get(worker) is None and not self._is_welcome(worker, payload):
            return
        beat, complaint = decode_heartbeat(payload)
        if complaint is not None:
            self._complain("malformed", worker, complaint)
        self._take(worker, beat)

    def probe_answer(self, worker: str, payload: bytes) -> None:
        """Take the answer to a probe in: whatever it says, somebody of that name is there."""
        self.counts["probe_answers"] += 1
        lease = self._book.get(worker)
        if lease is not None:
            beat, _ = decode_heartbeat(payload)
            # Who answers this one answers the next; and who says nothing of itself is whom we asked.
            named = beat.incarnation or lease.incarnation
            self._take(worker, msgspec.structs.replace(beat, probe=True, incarnation=named))

    def hello(self, subject: str, payload: bytes) -> Hello:
        """Take one hello in and return it. Raises MessageError, in a line that can be answered, when it is refused.

        Raises TurnedAwayError for a stranger's that is not to be answered.
        """
        worker = self._subjects.worker_of(subject)
        self.counts["hellos"] += 1
        try:
            hello = _legible(worker, self._bounded(payload))
        except MessageError as error:
            self._complain("hello_refused", worker, str(error))
            raise
        arrival = self._clock()
        now = self._hearing.stamp(arrival)
        beat = self._clamped(hello.as_heartbeat())
        if self._book.get(worker) is None and not self._comes_in(worker, beat.ttl):
            raise TurnedAwayError(f"{worker} is beyond the bounds for strangers")
        heard = self._book.hello(worker, now, beat, arrival, arrival - self._hearing.not_before)
        if heard is Heard.STALE:
            self._stale(worker, hello.incarnation, arrival)
            raise MessageError(f"the incarnation {hello.incarnation} is over: a newer one of {worker} was heard")
        self._noted(worker, hello.via, heard, now)
        if heard in {Heard.RESTARTED, Heard.STARTED} and (left := self._left_out(worker, "hello", arrival)) is not None:
            log.info("hello", worker=worker, incarnation=hello.incarnation, left_out=left)
        return hello

    def goodbye(self, subject: str, payload: bytes, _reply: str = "") -> None:
        """Take one goodbye in."""
        worker = self._subjects.worker_of(subject)
        if not self._subjects.owns(worker):
            return
        self.counts["goodbyes"] += 1
        try:
            goodbye = decode_goodbye(self._bounded(payload))
        except MessageError as error:
            self._complain("goodbye_malformed", worker, str(error))
            return
        details = {"exit_code": goodbye.exit_code, "signal": goodbye.signal} if goodbye.reason == "died" else None
        arrival = self._clock()
        proof = Proof(goodbye.reason, details, told_at=arrival, uptime=goodbye.uptime)
        if self._book.release(worker, goodbye.incarnation, self._hearing.stamp(arrival), proof):
            log.info("goodbye", worker=worker, reason=goodbye.reason)
            self._wakes.endings.set()
        else:
            self._complain("goodbye_stale", worker, self._why_stale(worker, goodbye))

    def _why_stale(self, worker: str, goodbye: Goodbye) -> str:
        lease = self._book.get(worker)
        if lease is None or lease.incarnation != goodbye.incarnation or not lease.has_begun_since(goodbye.uptime):
            return "of a life that is over, or of another incarnation than the living"
        return (
            f"it comes late, of a life that is over: said at an age of {goodbye.uptime:.3f} s, and its incarnation has "
            f"begun another life since, by its hello at {lease.hello_uptime:.3f} s"
        )

    def _take(self, worker: str, beat: Heartbeat) -> None:
        arrival = self._clock()
        now = self._hearing.stamp(arrival)
        when = Arrived(arrival, self._hearing.not_before, self._hearing.now)
        heard = self._book.beat(worker, now, self._clamped(beat), arrival, when)
        if heard is STALE:
            self._storms.overheard(beat.via, now)
            self._stale(worker, beat.incarnation or "", arrival)
        else:
            self._noted(worker, beat.via, heard, now)
            if beat.running is not None or beat.progress is not None or beat.incarnation is None:
                self._report(worker, beat, now)

    def _report(self, worker: str, beat: Heartbeat, now: float) -> None:
        lease = self._book.get(worker)
        # Of two that beat under one name, only what the one says that bears it.
        if self.reports is not None and lease is not None and lease.incarnation == beat.incarnation:
            if beat.running is None:
                self.reports.heard_unlisted(lease)
                if beat.progress is None:
                    return
            hearing = self._hearing
            self.reports.hear(lease, beat.running, beat.progress, now, hearing.not_before, hearing.least_stamp)

    def _noted(self, worker: str, via: str | None, heard: Heard, now: float) -> None:
        lease = self._book.get(worker)
        if worker in self.admission.strangers:
            self._storms.overheard(via, now)
        elif lease is not None:
            self._storms.heard(lease, via, now)
        # Nearly all are: for them a look at each of the others, one by one, would cost as much as all the rest.
        if heard is not RENEWED:
            self._note(worker, lease, heard)
        if worker in self._book.arrivals:
            self._wakes.arrivals.set()

    def _note(self, worker: str, lease: Lease | None, heard: Heard) -> None:
        match heard:
            case Heard.REVIVED:
                self.counts["revived"] += 1
                log.info("lease_revived", worker=worker)
            case Heard.RESTARTED:
                self.counts["restarts"] += 1
                if (left := self._left_out(worker, "restarted", self._clock())) is not None:
                    incarnation = lease.incarnation if lease else None
                    log.warning("restarted", worker=worker, incarnation=incarnation, left_out=left)
                self._wakes.endings.set()
                self._wakes.lives.set()
            case Heard.ADOPTED:
                self._complain(
                    "incarnation_without_uptime",
                    worker,
                    "a new incarnation beats and does not say since when, so nothing of the former one can be taken: "
                    "send hello, or uptime with the heartbeats",
                )
            case Heard.CONFLICT:
                self.counts["conflicts"] += 1
                log.error(
                    "conflict",
                    worker=worker,
                    complaint="two incarnations beat under one name: nothing is taken from either; give each its own",
                )
            case _:
                pass
        # What merely changed in a life is written with the next round, for all at once: no statement per heartbeat.
        if heard in {Heard.STARTED, Heard.REVIVED}:
            self._wakes.lives.set()

    def _stale(self, worker: str, incarnation: str, arrival: float) -> None:
        self._complain("stale", worker, f"the incarnation {incarnation} was replaced by a newer one and still beats")
        lease = self._book.get(worker)
        epoch = self._book.incarnations.epoch_of(worker, incarnation)
        if lease is None or lease.epoch is None or epoch is None or epoch == lease.epoch:
            # It will be told when the verdict on it is in, at its next beat.
            return
        if arrival - self._told.get(worker, -TELL_SECONDS) >= TELL_SECONDS:
            if len(self._told) >= COMPLAINTS_REMEMBERED:
                self._told.clear()
            self._told[worker] = arrival
            message = Superseded(
                epoch=epoch, incarnation=incarnation, new_epoch=lease.epoch, new_incarnation=lease.incarnation
            )
            self._tell(self._subjects.superseded(worker), msgspec.json.encode(message))

    def _left_out(self, worker: str, kind: str, arrival: float) -> int | None:
        """Return how many lines were left out since the last one of that kind; None: this one is left out, too.

        Each begins a life, and who floods with them is not to fill the disk by it.
        """
        at, left_out = self._lines.get((worker, kind), (-math.inf, 0))
        if arrival - at < LINE_SECONDS:
            self._lines[worker, kind] = at, left_out + 1
            return None
        if len(self._lines) >= COMPLAINTS_REMEMBERED:
            self._lines.clear()
        self._lines[worker, kind] = arrival, 0
        return left_out

    def _clamped(self, beat: Heartbeat) -> Heartbeat:
        ttl, uptime = beat.ttl, beat.uptime
        if ttl is not None and not self._min_ttl <= ttl <= self._max_ttl:
            self.counts["beyond_ttl"] += 1
            beat = msgspec.structs.replace(beat, ttl=self._clamp_ttl(ttl))
        if uptime is not None and uptime > MOST_UPTIME:
            beat = msgspec.structs.replace(beat, uptime=MOST_UPTIME)
        return beat

    def _is_welcome(self, worker: str, payload: bytes) -> bool:
        if fault := name_fault(worker):
            self._complain("unusable_name", worker, fault)
        elif not self._subjects.owns(worker):
            self._complain(
                "not_ours", worker, "it beats on our subject and is of another share: who may publish there?"
            )
        else:
            return self._comes_in(worker, payload)
        return False

    def _comes_in(self, worker: str, said: bytes | float | None) -> bool:
        """Say whether a name without a lease gets one; `said` is its beat, or the ttl that it states."""
        arrival = self._clock()
        bound = self.admission.bound_for(worker, len(self._book), arrival)
        if bound is None:
            return True
        self.counts[f"beyond_{bound}"] += 1
        ttl = decode_heartbeat(said)[0].ttl if isinstance(said, bytes) else said
        ttl = self._default_ttl if ttl is None else min(max(ttl, self._min_ttl), self._max_ttl)
        self.admission.turned_away(self._hearing.stamp(arrival), ttl)
        return False

    def _bounded(self, payload: bytes) -> bytes:
        if len(payload) <= PAYLOAD_MOST:
            return payload
        self.counts["beyond_payload"] += 1
        raise MessageError(f"it has {len(payload)} bytes, and {PAYLOAD_MOST} are the most")

    def _complain(self, kind: str, worker: str, complaint: str) -> None:
        self.counts[kind] += 1
        # By kind: whoever has many names must not silence what is said of others.
        complained = self._complained[kind]
        if worker not in complained and len(complained) < COMPLAINTS_REMEMBERED:
            complained.add(worker)
            log.warning(kind, worker=worker, complaint=complaint)
            if len(complained) == COMPLAINTS_REMEMBERED:
                log.warning("complaints_end", kind=kind, complaint="from here on they are only counted")


def _legible(worker: str, payload: bytes) -> Hello:
    if fault := name_fault(worker):
        raise MessageError(f"the worker name {fault}")
    return decode_hello(payload)
