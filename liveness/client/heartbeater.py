"""The worker's heart: while a body runs, it says on NATS that the worker lives, and at the end that it is over."""

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Final, Self

import msgspec

from liveness.access import ANYBODY, Access
from liveness.bounded import finish_within
from liveness.client.beats import Beats
from liveness.client.connection import Connection
from liveness.client.forks import Home
from liveness.client.holding import Holding
from liveness.client.identity import identity_of
from liveness.client.life import Life
from liveness.client.lookout import Lookout
from liveness.client.pace import Pace
from liveness.client.problems import Problems, log
from liveness.client.standing import Parts, Standing
from liveness.client.surroundings import Surroundings
from liveness.errors import LostError
from liveness.link import Link
from liveness.messages import Goodbye
from liveness.subjects import CONNECTION, Subjects

# What entering waits for the first beat, so that a worker which claims work right away is normally known by then.
ENTER_SECONDS: Final = 1.0
# What leaving may cost: shorter than what supervisors grant a process between SIGTERM and SIGKILL.
LEAVE_SECONDS: Final = 1.0


class Heartbeater(Standing):
    """Beats for `worker` while the body of its `async with` runs.

        async with Heartbeater("nats://127.0.0.1:4222", worker="w1", ttl=10, interval=2) as heartbeater:
            ...

    `ttl` is how many seconds one beat is good for (without it, the service's `heartbeat_timeout` holds); `interval` is
    the seconds between two beats, a fifth of the ttl by default, or 10. `incarnation` tells this process from the one
    that bore the name before; by default it is random. `nats_url` may name several servers, separated by commas;
    `access` is how to log in there.

    Entering waits a second at most and never fails because NATS is away: the beats begin when it is back. Nothing that
    goes wrong with the heartbeat is raised into the body; it is logged (`liveness.client`), and kept in `last_problem`.
    However the body ends, by an exception too, a goodbye follows within about a second: whatever it did is over, and
    its work goes back to the queue at once.

    It says hello first, and entering waits for the answer for what is left of that second: then `epoch` is known, and
    all that a former process of the name held is back. Until somebody answers, it asks again, and `epoch` is None.

    Under `liveness run`, or whoever else sets LIVENESS_INCARNATION beside LIVENESS_WORKER, it adopts that identity: the
    name, if none is given, and with it the incarnation and the epoch. Somebody else beats for the process then, and
    tells its end, so this one neither beats nor says hello or goodbye; it only hears when the worker is given up. With
    another name, or an incarnation of its own, it is a worker of its own.

    It knows by its own clock when its work may be given away: a ttl after it sent the last beat that NATS has taken.
    It is `lost` `margin` seconds before that (by default a fifth of the ttl, at most 10), and has to have stopped when
    they are over. `remaining` and `check` ask, `lost` and `on_lost` tell. A service that is away loses nobody: NATS
    takes the beats. Whoever is lost stays it until it leaves the block or begins again (`begin_again`). Its beats go on
    where they can: it may have kept its work, and need not have stopped. It is lost, too, when it is `superseded`.
    `on_lost` and `on_superseded` are called on the loop, once in a life; what they raise is logged.

    The service asks a worker that is about to be given up once more (a probe), and this one answers. `alive`, if given,
    is asked before all that is sent of its life, and while it says no, or raises, nothing is; `beat_now` does not wait
    then for the interval. All of it shares the body's event loop: a body that blocks it for longer than the ttl counts
    as dead. What tells how it stands (`remaining`, `check` and so on), `holding` and `progressed` are for any thread. A
    worker without an event loop takes `SyncHeartbeater`.

    A process that was forked off has a copy, which refuses all use with RuntimeError and says nothing when its block is
    left; the parent goes on unharmed. (Nor can the parent's loop go on in a child: begin a new one there.)

    Raises ValueError for an argument that cannot be used, and RuntimeError when it is entered a second time.
    """

    # What a test of a worker puts something else in the place of.
    _around = Surroundings()

    def __init__(  # noqa: PLR0913 - all but the first are named
        self,
        nats_url: str,
        *,
        worker: str | None = None,
        ttl: float | None = None,
        interval: float | None = None,
        margin: float | None = None,
        incarnation: str | None = None,
        on_lost: Callable[[], object] | None = None,
        on_superseded: Callable[[], object] | None = None,
        prefix: str = "liveness",
        alive: Callable[[], bool] = lambda: True,
        access: Access = ANYBODY,
    ) -> None:
        who = identity_of(worker, incarnation)
        pace = Pace.stated(ttl, interval, margin)
        self._patience = pace.patience
        self._subjects = Subjects(prefix)
        self._problems = Problems(f"worker {who.worker}")
        self._connection = Connection(
            nats_url,
            CONNECTION + who.worker,
            patience=self._patience,
            problems=self._problems,
            access=access,
            # Of its own, so that no worker can be allowed to hear what another one is answered.
            inbox_prefix=f"{access.inbox_prefix}.{who.worker}",
            on_refusal=self._hear_refusal,
            link=self._around.link,
        )
        clock = self._around.clock
        self._lookout = Lookout(who.worker, pace, self._problems, on_lost, clock=clock)
        self._life = Life(
            who.worker,
            who.incarnation,
            subjects=self._subjects,
            problems=self._problems,
            lookout=self._lookout,
            on_begun=self._begun,
            on_superseded=on_superseded,
            clock=clock,
        )
        self._holding = Holding()
        self._beats = Beats(who.incarnation, ttl, self._holding, clock=clock)
        home = Home(who.worker, self._abandon)
        super().__init__(
            Parts(who, home, self._problems, self._connection, self._lookout, self._life, self._holding, self._beats)
        )
        self._alive = alive
        if self.adopted:
            self._life.adopt(who.epoch)
        self.greeted: Final = self._life.greeted
        """Set when the service has answered the hello: with an epoch, or with a refusal."""
        self.superseded: Final = self._life.superseded
        """Set when the service has ended an epoch of this incarnation: drop the work of that epoch."""
        self.lost: Final = self._lookout.lost
        """Set when the work may be given away before long, or was: stop, drop it, and leave or begin again."""
        # How often NATS has refused to publish a beat.
        self._refused = 0
        self._known = asyncio.Event()
        # Set when the next beat is not to wait for its time.
        self._sooner = asyncio.Event()
        self._goodbye = Goodbye(incarnation=self.incarnation)
        self._leaving = False
        self._left = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def died(self, *, exit_code: int | None = None, signal: int | None = None) -> None:
        """Let the goodbye be a certificate: who works under this name was seen to end so."""
        self._require()
        self._goodbye = Goodbye(incarnation=self.incarnation, exit_code=exit_code, signal=signal)

    def beat_now(self) -> None:
        """Wait no longer for the time of the next beat."""
        self._require()
        self._sooner.set()

    async def welcome(self, seconds: float) -> bool:
        """Wait until the hello is answered; return whether it is.

        At most for `seconds`, and not where NATS is away or says that nobody is there to answer.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds if self.connected else 0):
                await self._life.greeting_over.wait()
        return self.greeted.is_set()

    async def drain(self) -> None:
        """Begin nothing any more, beat until the last piece that is held is finished, and say goodbye.

        Not to be awaited by who holds one, nor while a claim is under way: what that brings behind the goodbye is not
        given back by it. Cancelled, it is still draining. Raises RuntimeError before it is entered.
        """
        self._require()
        if self._task is None:
            raise RuntimeError("a Heartbeater that was not entered has nothing to drain")
        self._holding.draining = True
        await self._holding.idle()
        await self._leave()

    async def begin_again(self) -> None:
        """Say that all that was held is dropped, and return when the next life has begun, with an epoch of its own.

        What the former one held is back in the queue then, and it is neither `lost` nor `superseded` any more. Claim
        nothing before, and let no claim be under way: what it brings is no work of the next life. It takes
        a service, and as long as there is none; cancelled, it goes on.

        Raises LostError when a newer process bears the name, or this one leaves meanwhile, and RuntimeError where
        something is held still, or it does not beat for itself.
        """
        self._require()
        if self.adopted or self._task is None or self._leaving:
            raise RuntimeError("only a Heartbeater that beats for itself, and is not leaving, can begin again")
        if self.held:
            raise RuntimeError(f"{len(self.held)} held still, as {self.held[0]}: drop all of it before you begin again")
        beginning = self._life.give_up()
        self._sooner.set()
        await asyncio.shield(beginning)
        if self.refusal is not None or self._leaving:
            raise LostError(f"worker {self.worker} cannot begin again: {self.refusal or 'it is leaving'}")

    async def __aenter__(self) -> Self:
        self._require()
        if self._task is not None:
            raise RuntimeError("a Heartbeater is one life and is entered once: make another one")
        # From here on it may claim, and not since it was made.
        now = self._around.clock()
        self._beats.begin(now)
        if not self.adopted:
            self._lookout.begin(now)
        self._task = asyncio.create_task(self._live(), name=f"heartbeat of {self.worker}")
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ENTER_SECONDS):
                    await self._known.wait()
                    await self._life.greeting_over.wait()
        except BaseException:
            # Cancelled: there will be no body, and so no end of it either.
            await self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._forked:
            # The parent's life is not over.
            return
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
                link.listen(self._subjects.superseded(self.worker), self._life.hear_superseded)
                if not self.adopted:
                    # Ahead of the first beat on this link, which says that probes are answered.
                    link.listen(self._subjects.probe(self.worker), partial(self._hear_probe, link))
                    link.accept_answers()
                    self._life.new_link()
                await self._beat_while_it_stands(link)
            except Exception as error:  # noqa: BLE001 - no fault of the heartbeat may reach the worker's own code
                cause = str(error) or type(error).__name__
            if link is not None and not self._leaving:
                await self._connection.lose(link, cause)

    async def _beat_while_it_stands(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        link.lost.add_done_callback(lambda _: self._sooner.set())
        due = loop.time()
        while not self._leaving and not link.lost.done():
            self._sooner.clear()
            await self._beat(link)
            due += self.interval
            now = loop.time()
            if due <= now:
                # After a stall the beat that was missed is made up for, not every one of them.
                due = now + self.interval
            await self._around.pause(due - now, self._sooner)
            due = min(due, loop.time())

    async def _beat(self, link: Link) -> None:
        if self.adopted or not self._is_alive():
            # Only so that what is to be heard would be.
            await link.answer(self._patience)
        else:
            # The machine may have been suspended, and nobody has looked since.
            self._lookout.look()
            self._life.greet(link, self._beats, self.interval + self._patience)
            sent, refused = self._around.clock(), self._refused
            # One beat at a time is on its way, so a server that stood still is not flooded with old ones.
            beat = self._beats.next(link, self.interval)
            await link.deliver(self._subjects.heartbeat(self.worker), beat, self._patience)
            if refused != self._refused:
                # The link stands, and does not do what it is for.
                self._known.set()
                return
            self._lookout.proven(sent)
            self._beats.taken += 1
        self._connection.proven()
        self._known.set()

    def _is_alive(self) -> bool:
        try:
            return self._alive()
        except Exception as error:  # noqa: BLE001 - it may not cost the connection: nothing would be heard any more
            # Whoever does not know says nothing.
            self._problems.report("alive", f"alive has raised {error!r}: no beat is sent")
            return False

    def _begun(self, ttl: float | None) -> None:
        if ttl is not None and self._lookout.grant(ttl):
            log.info("worker %s: the service grants a ttl of %g s: beating every %g s", self.worker, ttl, self.interval)
            self._sooner.set()

    def _hear_refusal(self, text: str) -> None:
        # By a mapping of the server's it may be another subject than ours.
        self._refused += "publish" in text and ".heartbeat." in text

    def _hear_probe(self, link: Link, _subject: bytes, reply: bytes, _headers: bytes, _payload: bytes) -> None:
        # Only to an inbox, as the service does: whoever asks chooses where, and anywhere else our answer would be a
        # message that means something. And never behind a goodbye: it would begin a new life.
        if reply.startswith(b"_") and not self._leaving and self._is_alive():
            link.send(reply.decode(errors="replace"), self._beats.next(link, self.interval))

    def _abandon(self) -> None:
        # Nobody beats in a process that was forked off, whatever goes on in it.
        self._leaving = True
        self._connection.abandon()
        self._holding.abandon()

    async def _leave(self) -> None:
        if self._leaving:
            # By `drain`, at the end of which the body ends, or the other way round.
            await self._left.wait()
            return
        self._leaving = True
        self._lookout.leave()
        self._life.leave()
        try:
            await finish_within(LEAVE_SECONDS, self._say_goodbye())
        finally:
            # In case the second was not enough.
            self._connection.cut()
            self._left.set()

    async def _say_goodbye(self) -> None:
        # The beats end first: one behind the goodbye would begin a new life.
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        link = self._connection.link
        if link is not None and not self.adopted:
            try:
                goodbye = msgspec.json.encode(msgspec.structs.replace(self._goodbye, uptime=self._beats.uptime))
                await link.deliver(self._subjects.goodbye(self.worker), goodbye, LEAVE_SECONDS)
            except Exception as error:  # noqa: BLE001 - no fault of the heartbeat may reach the worker's own code
                self._problems.report("goodbye", f"the goodbye may be lost: {error}")
        elif self._beats.taken:
            self._problems.report("goodbye", "no goodbye: NATS is away; the work goes back when the ttl has run out")
        await self._connection.close()
