"""The worker's heart: while a body runs, it says on NATS that the worker lives, and at the end that it is over."""

import asyncio
import contextlib
import math
import os
import time
import uuid
from collections.abc import Collection
from functools import partial
from types import TracebackType
from typing import Final, NamedTuple, Self

import msgspec
from nats.aio.msg import Msg

from liveness.bounded import finish_within
from liveness.client.connection import Connection
from liveness.client.problems import Problems, log
from liveness.link import Link
from liveness.messages import MAX_INCARNATION, Goodbye, Heartbeat, Hello, HelloAnswer, Superseded
from liveness.subjects import CONNECTION, Subjects, name_fault

# Four beats may be lost before a lease lapses.
BEATS_IN_A_TTL: Final = 5
# For a worker that states no ttl: six in the service's default of 60 s.
DEFAULT_INTERVAL: Final = 10.0
# What entering waits for the first beat, so that a worker which claims work right away is normally known by then.
ENTER_SECONDS: Final = 1.0
# What leaving may cost: shorter than what supervisors grant a process between SIGTERM and SIGKILL.
LEAVE_SECONDS: Final = 1.0
# An answer from NATS is a matter of milliseconds; below half a second, a busy machine would look like a lost server.
LEAST_PATIENCE, MOST_PATIENCE = 0.5, 2.0

# A hello that was not answered within so many seconds is said again with the next beat: Postgres was away, a replica
# was about to take over, or there is no service.
GREET_AGAIN_SECONDS: Final = 5.0

# Ids in a beat: half of what NATS takes in one message, if they are UUIDs. A beat has to come through.
MOST_RUNNING: Final = 10_000

# Where a process finds for whom it works.
IDENTITY: Final = ("LIVENESS_WORKER", "LIVENESS_INCARNATION", "LIVENESS_EPOCH")

_superseded = msgspec.json.Decoder(Superseded)
_hello_answer = msgspec.json.Decoder(HelloAnswer)


class _Identity(NamedTuple):
    """Who this process is, as its environment says."""

    worker: str | None
    incarnation: str | None
    epoch: int | None


def _identity_around() -> _Identity:
    worker, incarnation, epoch = (os.environ.get(name) or None for name in IDENTITY)
    return _Identity(
        worker, incarnation, int(epoch) if epoch is not None and epoch.isascii() and epoch.isdigit() else None
    )


class Heartbeater:
    """Beats for `worker` while the body of its `async with` runs.

        async with Heartbeater("nats://127.0.0.1:4222", worker="w1", ttl=10, interval=2) as heartbeater:
            ...

    `ttl` is how many seconds one beat is good for (without it, the service's `heartbeat_timeout` holds); `interval` is
    the seconds between two beats, a fifth of the ttl by default, or 10. `incarnation` tells this process from the one
    that bore the name before; by default it is random. `nats_url` may name several servers, separated by commas.

    Entering waits a second at most and never fails because NATS is away: the beats begin when it is back. Nothing that
    goes wrong with the heartbeat is raised into the body; it is logged (`liveness.client`), and kept in `last_problem`.
    However the body ends, a goodbye follows, within about a second: by an exception too, because no more beats will
    follow and whatever the body did is over. Its work goes back to the queue at once.

    It says hello first, and entering waits for the answer for what is left of that second: then `epoch` is known, and
    all that a former process of the name held is back in the queue. Until somebody answers, it asks again, and `epoch`
    is None.

    Under `liveness run`, or whoever else sets LIVENESS_INCARNATION beside LIVENESS_WORKER, it adopts that identity: the
    name, if none is given, and with it the incarnation and the epoch. Somebody else beats for the process then, and
    tells its end, so this one neither beats nor says hello or goodbye; it only hears when the worker is given up. With
    another name, or an incarnation of its own, it is a worker of its own.

    The service asks a worker that is about to be given up once more (a probe), and this one answers.

    The beats share the body's event loop: a body that blocks it for longer than the ttl counts as dead.

    Raises ValueError for a name, incarnation, ttl, interval or URL that cannot be used, and RuntimeError when
    it is entered a second time.
    """

    def __init__(
        self,
        nats_url: str,
        *,
        worker: str | None = None,
        ttl: float | None = None,
        interval: float | None = None,
        incarnation: str | None = None,
        prefix: str = "liveness",
    ) -> None:
        around = _identity_around()
        worker = around.worker if worker is None else worker
        if worker is None:
            raise ValueError("no worker is named: give worker, or set LIVENESS_WORKER")
        fault = name_fault(worker)
        if fault is not None:
            raise ValueError(f"the worker name {worker!r} {fault}")
        self.worker: Final = worker
        self.adopted: Final = incarnation is None and around.incarnation is not None and around.worker == worker
        """Whether somebody else beats for this process, and this only listens."""
        if self.adopted:
            incarnation = around.incarnation
        self.incarnation: Final = uuid.uuid4().hex if incarnation is None else incarnation
        if not 0 < len(self.incarnation) <= MAX_INCARNATION or "\0" in self.incarnation:
            raise ValueError(f"incarnation has to be a text of 1 to {MAX_INCARNATION} characters, none of them U+0000")
        self.interval: Final = _interval(ttl, interval)
        self.ttl: Final = ttl
        self.beats_sent = 0
        """How many beats NATS has taken."""
        self.superseded: Final = asyncio.Event()
        """Set when the service has ended an epoch of this incarnation: drop the work of that epoch."""
        self.superseded_epoch: int | None = None
        """The epoch that is over."""
        self.epoch: int | None = around.epoch if self.adopted else None
        """The fencing token of this life, once the service has told it; it changes when a life is over."""
        self.greeted: Final = asyncio.Event()
        """Set when the service has answered the hello: with an epoch, or with a refusal."""
        self.refusal: str | None = None
        """Why the hello was refused: a newer process bears the name, and this one had better stop."""

        self.running: Collection[object] | None = None
        """The ids of all work that this worker holds, to be said with every beat; None says nothing of any.

        An id belongs into it from before its claim is committed until after its last statement is. More than
        MOST_RUNNING of them are not said.
        """
        self.progress: int | None = None
        """A number to be said with every beat, which grows while anything gets done."""

        self._subjects = Subjects(prefix)
        self._problems = Problems(f"worker {worker}")
        self._patience = min(max(self.interval, LEAST_PATIENCE), MOST_PATIENCE)
        self._connection = Connection(nats_url, CONNECTION + worker, patience=self._patience, problems=self._problems)
        self._born = 0.0
        self._seq = 0
        self._known = asyncio.Event()
        self._greet_at = 0.0
        # Answered, or nobody is there to answer.
        self._greeting_over = asyncio.Event()
        if self.adopted:
            self._greeting_over.set()
        if self.epoch is not None:
            self.greeted.set()
        self._goodbye = Goodbye(incarnation=self.incarnation)
        self._leaving = False
        self._task: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a connection to NATS just now."""
        return self._connection.link is not None

    @property
    def last_problem(self) -> str | None:
        """The last thing that went wrong with the heartbeat, also when it goes well again; None if nothing did."""
        return self._problems.last

    @property
    def identity(self) -> dict[str, str]:
        """What a process that works under this name has in its environment; the epoch if it is known."""
        worker, incarnation, epoch = IDENTITY
        identity = {worker: self.worker, incarnation: self.incarnation}
        return identity if self.epoch is None else identity | {epoch: str(self.epoch)}

    def died(self, *, exit_code: int | None = None, signal: int | None = None) -> None:
        """Let the goodbye be a certificate: who works under this name was seen to end so."""
        self._goodbye = Goodbye(incarnation=self.incarnation, exit_code=exit_code, signal=signal)

    async def welcome(self, seconds: float) -> bool:
        """Wait until the hello is answered; return whether it is.

        At most for `seconds`, and not where NATS is away or says that nobody is there to answer.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds if self.connected else 0):
                await self._greeting_over.wait()
        return self.greeted.is_set()

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a Heartbeater is one life and is entered once: make another one")
        # From here on it may claim, and not since it was made.
        self._born = _clock()
        self._task = asyncio.create_task(self._live(), name=f"heartbeat of {self.worker}")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENTER_SECONDS):
                    await self._known.wait()
                    await self._greeting_over.wait()
        except BaseException:
            # Cancelled: there will be no body, and so no end of it either.
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._leave()
        except asyncio.CancelledError:
            # A second cancellation adds nothing to the first, which goes on its way; one that came meanwhile does.
            if not isinstance(error, asyncio.CancelledError):
                raise

    async def _live(self) -> None:
        # Not only cancelled but told: nats-py, and wait_for of Python 3.11, may swallow a cancellation.
        while not self._leaving:
            link, cause = None, ""
            try:
                link = await self._connection.open()
                await link.subscribe(self._subjects.superseded(self.worker), cb=self._hear_superseded)
                if not self.adopted:
                    # Ahead of the first beat on this link, which says that probes are answered.
                    link.listen(self._subjects.probe(self.worker), partial(self._hear_probe, link))
                    link.accept_answers()
                    self._greet_at = 0.0
                await self._beat_until_lost(link)
            except Exception as error:  # noqa: BLE001 - no fault of the heartbeat may reach the worker's own code
                cause = str(error) or type(error).__name__
            if link is not None and not self._leaving:
                await self._connection.lose(link, cause)

    async def _beat_until_lost(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not self._leaving and not link.lost.done():
            await self._beat(link)
            due += self.interval
            now = loop.time()
            if due <= now:
                # After a stall the beat that was missed is made up for, not every one of them.
                due = now + self.interval
            await asyncio.wait({link.lost}, timeout=due - now)

    async def _beat(self, link: Link) -> None:
        if self.adopted:
            # Only so that what is to be heard would be.
            await link.answer(self._patience)
        else:
            self._greet(link)
            # One beat at a time is on its way, so a server that stood still is not flooded with old ones.
            await link.deliver(self._subjects.heartbeat(self.worker), self._next_beat(link), self._patience)
            self.beats_sent += 1
        self._connection.proven()
        self._known.set()

    def _greet(self, link: Link) -> None:
        now = asyncio.get_running_loop().time()
        if self.greeted.is_set() or now < self._greet_at:
            return
        self._greet_at = now + GREET_AGAIN_SECONDS
        hello = Hello(
            incarnation=self.incarnation, ttl=self.ttl, uptime=_clock() - self._born, probe=True, via=link.server_id
        )
        subject = self._subjects.hello(self.worker)
        # Not forgotten before it is said again.
        patience = max(GREET_AGAIN_SECONDS, self.interval) + self._patience
        link.ask(subject, msgspec.json.encode(hello), self._hear_greeting, patience)

    def _hear_greeting(self, payload: bytes | None) -> None:
        self._greeting_over.set()
        if payload is None:
            # There is no service just now.
            return
        try:
            answer = _hello_answer.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._problems.report("hello", f"the answer to the hello does not decode: {error}")
            return
        if answer.incarnation not in {self.incarnation, None}:
            return
        if answer.epoch is None:
            self.refusal = answer.error or "the hello was refused"
            self._problems.report("hello", self.refusal)
            self.superseded.set()
        else:
            self._know(answer.epoch)
        self.greeted.set()

    def _know(self, epoch: int) -> None:
        # They only grow, and what tells of one may come late.
        self.epoch = max(epoch, self.epoch or 0)

    def _next_beat(self, link: Link) -> bytes:
        self._seq += 1
        running = self.running
        if running is not None and len(running) > MOST_RUNNING:
            self._problems.report("running", f"{len(running)} ids are more than {MOST_RUNNING}: none is said")
            running = None
        # A copy first: another thread may add to it meanwhile.
        beat = Heartbeat(
            incarnation=self.incarnation,
            seq=self._seq,
            ttl=self.ttl,
            interval=self.interval,
            uptime=_clock() - self._born,
            probe=True,
            via=link.server_id,
            running=None if running is None else [str(one) for one in tuple(running)],
            progress=self.progress,
        )
        return msgspec.json.encode(beat)

    def _hear_probe(self, link: Link, _subject: bytes, reply: bytes, _headers: bytes, _payload: bytes) -> None:
        # Only to an inbox, as the service does: whoever asks chooses where, and anywhere else our answer would be a
        # message that means something. And never behind a goodbye: it would begin a new life.
        if reply.startswith(b"_") and not self._leaving:
            link.send(reply.decode(errors="replace"), self._next_beat(link))

    async def _hear_superseded(self, message: Msg) -> None:
        try:
            notice = _superseded.decode(message.data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            self._problems.report("superseded", f"a message on {message.subject} does not decode: {error}")
            return
        if notice.incarnation == self.incarnation:
            log.warning("worker %s: its epoch %d is over, its work was given away", self.worker, notice.epoch)
            self.superseded_epoch = notice.epoch
            self._know(notice.new_epoch)
            self.superseded.set()

    async def _leave(self) -> None:
        self._leaving = True
        try:
            await finish_within(LEAVE_SECONDS, self._say_goodbye())
        finally:
            # In case the second was not enough.
            self._connection.cut()

    async def _say_goodbye(self) -> None:
        # The beats end first: one behind the goodbye would begin a new life.
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        link = self._connection.link
        if link is not None and not self.adopted:
            try:
                goodbye = msgspec.json.encode(self._goodbye)
                await link.deliver(self._subjects.goodbye(self.worker), goodbye, LEAVE_SECONDS)
            except Exception as error:  # noqa: BLE001 - no fault of the heartbeat may reach the worker's own code
                self._problems.report("goodbye", f"the goodbye may be lost: {error}")
        elif self.beats_sent:
            self._problems.report("goodbye", "no goodbye: NATS is away; the work goes back when the ttl has run out")
        await self._connection.close()


def _interval(ttl: float | None, interval: float | None) -> float:
    if ttl is not None and not (math.isfinite(ttl) and ttl > 0):
        raise ValueError(f"ttl ({ttl:g}) has to be a number of seconds above 0")
    if interval is None:
        return DEFAULT_INTERVAL if ttl is None else ttl / BEATS_IN_A_TTL
    if not (math.isfinite(interval) and interval > 0):
        stated = "none stated" if ttl is None else f"{ttl:g}"
        raise ValueError(f"interval ({interval:g}) has to be above 0 and below the ttl ({stated}): raise interval")
    if ttl is not None and interval >= ttl:
        raise ValueError(
            f"interval ({interval:g}) is not below the ttl ({ttl:g}), so the lease would lapse between two beats: "
            f"lower interval, best to {ttl / BEATS_IN_A_TTL:g}, or raise ttl"
        )
    return interval


def _clock() -> float:
    # A duration that goes on while the machine is suspended, where the system can tell.
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()
