"""The duty that welcomes new incarnations: what a former one left is found, and a hello is answered when it is back.

Where the book knows the former life, its end is under way already. Of a name that the book did not know, or whose
process it did not, only the database can tell whether there is work from before this incarnation began; that is asked
once for each arrival, in one statement for all.
"""

from collections.abc import Callable, Mapping, Sequence

import msgspec
import structlog

from liveness.apart import Refusals, apart
from liveness.beginnings import Arrival
from liveness.errors import MessageError, TurnedAwayError
from liveness.hearing import Hearing
from liveness.intake import Intake
from liveness.lease import Lease
from liveness.leases import LeaseTable
from liveness.messages import HelloAnswer
from liveness.store import Store
from liveness.wakes import Wakes

log = structlog.get_logger("liveness.greetings")

# Hellos that wait for their answer. Beyond it none is taken: its worker asks again.
WAITING_MOST = 10_000
# Nobody waits for an answer any longer (seconds); the worker asks again, and is answered at once if all is well by
# then.
FORGET_SECONDS = 60.0
# Names that one statement looks for in the work tables.
BATCH = 1_000


class Waiting(msgspec.Struct, frozen=True):
    """A hello that was not answered yet."""

    incarnation: str
    reply: str
    since: float


class Greetings:
    """Answers hellos. `answer(reply, payload)` publishes to an inbox at once; `clock` is the loop's monotonic time.

    `leading()` says whether this replica answers; the others keep the book and are silent.
    """

    def __init__(
        self,
        *,
        book: LeaseTable,
        hearing: Hearing,
        intake: Intake,
        store: Store,
        answer: Callable[[str, bytes], object],
        clock: Callable[[], float],
        leading: Callable[[], bool],
        wakes: Wakes,
    ) -> None:
        self._book = book
        self._hearing = hearing
        self._intake = intake
        self._store = store
        self._answer = answer
        self._clock = clock
        self._leading = leading
        self._wakes = wakes
        self._waiting: dict[str, Waiting] = {}
        self._refusals = Refusals(clock)

    def hello(self, subject: str, payload: bytes, reply: str) -> None:
        """Take one hello in; it is answered when the former life's work is back."""
        worker = self._intake.worker_of(subject)
        if not self._intake.owns(worker):
            # Another share's sidecar answers.
            return
        try:
            hello = self._intake.hello(subject, payload)
        except TurnedAwayError:
            # Its worker asks again, and Postgres may know it by then.
            return
        except MessageError as error:
            if reply and self._leading():
                self._answer(reply, _refusal(worker, None, str(error)))
            return
        if reply and self._leading() and worker not in self._waiting and len(self._waiting) >= WAITING_MOST:
            self._intake.counts["beyond_hellos_waiting"] += 1
        elif reply and self._leading():
            former = self._waiting.get(worker)
            if former is not None and former.incarnation != hello.incarnation:
                self._answer(former.reply, _superseded(worker, former.incarnation))
            self._waiting[worker] = Waiting(hello.incarnation, reply, self._clock())
        self._wakes.arrivals.set()

    async def run_once(self) -> int:
        """Look for former lives of those that arrived, and answer who can be answered; return how many were."""
        await self._look_back()
        now = self._clock()
        ready: dict[str, Waiting] = {}
        for worker, waiting in list(self._waiting.items()):
            lease = self._book.get(worker)
            if now - waiting.since > FORGET_SECONDS:
                del self._waiting[worker]
            elif self._book.incarnations.is_former(worker, waiting.incarnation):
                del self._waiting[worker]
                self._answer(waiting.reply, _superseded(worker, waiting.incarnation))
            elif (
                lease is not None
                and lease.incarnation == waiting.incarnation
                and lease.epoch is not None
                and lease.ending is None
                and worker not in self._book.arrivals
            ):
                ready[worker] = waiting
        owing = await self._store.reclaims.owing(list(ready)) if ready else set()
        answered = 0
        for worker, waiting in ready.items():
            lease = self._book.get(worker)
            # While we asked, all of it may have changed.
            if worker in owing or lease is None or lease.epoch is None or lease.incarnation != waiting.incarnation:
                continue
            if self._waiting.get(worker) is waiting and lease.ending is None:
                del self._waiting[worker]
                self._answer(waiting.reply, _welcome(lease))
                answered += 1
        return answered

    async def _look_back(self) -> None:
        arrivals = {
            worker: arrival
            for worker, arrival in self._book.arrivals.items()
            if (lease := self._book.get(worker)) is not None and lease.ending is None and worker not in self._refusals
        }
        due = list(arrivals)
        for start in range(0, len(due), BATCH):
            for worker, error in await apart(due[start : start + BATCH], lambda names: self._look(names, arrivals)):
                # Asked again later: until it is known, nobody is promised anything.
                self._refusals.add(worker)
                log.error("former_life_unknown", worker=worker, cause=str(error))
        if due:
            # Who waited for this may have its epoch now.
            self._wakes.lives.set()

    async def _look(self, names: Sequence[str], arrivals: Mapping[str, Arrival]) -> None:
        now = self._clock()
        asked = {name: (arrivals[name].incarnation, now - arrivals[name].begun) for name in names}
        # Not later than it was: what passes until the answer is on the safe side.
        found = {name: now - age for name, age in (await self._store.host.holding(asked)).items()}
        for worker in names:
            lease, arrival = self._book.get(worker), arrivals[worker]
            if lease is None or lease.ending is not None or self._book.arrivals.get(worker) is not arrival:
                # While we asked, it was withdrawn, or another one came.
                continue
            if worker in found and lease.incarnation == arrival.incarnation:
                log.info("former_life_found", worker=worker, incarnation=arrival.incarnation)
                known = msgspec.structs.replace(arrival, begun=min(arrival.begun, found[worker]))
                self._book.restart(worker, self._hearing.now, known, former=None)
                self._wakes.lives.set()
            else:
                self._book.arrived(worker, arrival.incarnation)


def _welcome(lease: Lease) -> bytes:
    # Not the promise in force: that may be a longer one, of an earlier beat.
    return msgspec.json.encode(
        HelloAnswer(worker=lease.worker, incarnation=lease.incarnation, epoch=lease.epoch, ttl=lease.stated)
    )


def _refusal(worker: str, incarnation: str | None, error: str) -> bytes:
    return msgspec.json.encode(HelloAnswer(worker=worker, incarnation=incarnation, epoch=None, error=error))


def _superseded(worker: str, incarnation: str) -> bytes:
    return _refusal(worker, incarnation, f"{incarnation} is over: a newer incarnation of {worker} was heard")
