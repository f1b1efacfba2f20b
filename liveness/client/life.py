"""What the service says of a worker's life: that it has begun, and under which epoch; that it is over."""

import asyncio
import math
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from liveness.client.beats import Beats
from liveness.client.lookout import Lookout
from liveness.client.problems import Problems, log
from liveness.link import Link
from liveness.messages import Goodbye, Hello, HelloAnswer, Superseded
from liveness.subjects import Subjects

# A hello that was not answered within so many seconds is said again with the next beat: Postgres was away, a replica
# was about to take over, or there is no service.
GREET_AGAIN_SECONDS: Final = 5.0

_superseded = msgspec.json.Decoder(Superseded)
_hello_answer = msgspec.json.Decoder(HelloAnswer)
_UNDECODED = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Life:
    """The lives of one incarnation, one after the other.

    An answer to its hello is as good as a beat that was taken, for the `lookout`. `on_begun(ttl)` is called with the
    seconds that the service grants, None if it does not say; `on_superseded` when an epoch is over.

    A life is given up by a goodbye and not by a new incarnation: should a newer process bear the name by now, a goodbye
    of ours ends nothing, and the hello behind it is refused. A new incarnation would end that process's life, it would
    do the same, and so on.
    """

    def __init__(
        self,
        worker: str,
        incarnation: str,
        *,
        subjects: Subjects,
        problems: Problems,
        lookout: Lookout,
        on_begun: Callable[[float | None], None],
        on_superseded: Callable[[], object] | None,
        clock: Callable[[], float],
    ) -> None:
        self.epoch: int | None = None
        self.greeted: Final = asyncio.Event()
        # Answered, or nobody is there to answer.
        self.greeting_over: Final = asyncio.Event()
        self.refusal: str | None = None
        self.superseded: Final = asyncio.Event()
        self.superseded_epoch: int | None = None
        self._worker = worker
        self._incarnation = incarnation
        self._subjects = subjects
        self._problems = problems
        self._on_begun = on_begun
        self._on_superseded = on_superseded
        self._lookout = lookout
        self._clock = clock
        self._greet_at = 0.0
        # Done when the next life has begun, or will not.
        self._beginning: asyncio.Future[None] | None = None
        # The epoch that is over while the next life has not begun, if it was known; the first that was not given up.
        self._former: int | None = None
        self._since = 0
        self._number = 0

    def adopt(self, epoch: int | None) -> None:
        """Note that somebody else says hello, and was told this epoch."""
        self.epoch = epoch
        self.greeting_over.set()
        if epoch is not None:
            self.greeted.set()

    def new_link(self) -> None:
        """Say hello with the next beat, if it is still to be answered."""
        self._greet_at = 0.0

    def greet(self, link: Link, beats: Beats, patience: float) -> None:
        """Say hello if it is time to. It is said again `patience` seconds after the time for that at the latest."""
        now = asyncio.get_running_loop().time()
        if self.greeted.is_set() or now < self._greet_at:
            return
        self._greet_at = now + GREET_AGAIN_SECONDS
        if self._beginning is not None:
            # Said again with every hello: one that nobody heard would leave the former life as it is. And no answer to
            # an earlier hello counts: this goodbye may end the life that it tells of.
            self._number += 1
            # Older than the hello, by however little, and however coarse the clock is: should it come late, by another
            # server, it must not end the life that the hello begins.
            uptime = max(math.nextafter(beats.uptime, -math.inf), 0.0)
            goodbye = msgspec.json.encode(Goodbye(incarnation=self._incarnation, uptime=uptime))
            link.send(self._subjects.goodbye(self._worker), goodbye)
        sent = self._clock()
        hello = Hello(incarnation=self._incarnation, ttl=beats.ttl, uptime=beats.uptime, probe=True, via=link.server_id)
        on_answer = partial(self._hear_greeting, self._number, sent)
        # Not forgotten before it is said again.
        seconds = GREET_AGAIN_SECONDS + patience
        link.ask(self._subjects.hello(self._worker), msgspec.json.encode(hello), on_answer, seconds)

    def give_up(self) -> "asyncio.Future[None]":
        """Give this life up with the next beat; the future is done when the next one has begun, or will not."""
        if self._beginning is None:
            self._beginning = asyncio.get_running_loop().create_future()
            self._former, self.epoch, self.refusal = self.epoch, None, None
            self._number += 1
            self._greet_at = 0.0
            self.greeted.clear()
            self.greeting_over.clear()
        return self._beginning

    def leave(self) -> None:
        """Begin no other life: the worker is about to leave."""
        self._begun()

    def hear_superseded(self, subject: bytes, _reply: bytes, _headers: bytes, payload: bytes) -> None:
        """Take a notice that an epoch is over."""
        try:
            notice = _superseded.decode(payload)
        except _UNDECODED as error:
            where = subject.decode(errors="replace")
            self._problems.report("superseded", f"a message on {where} does not decode: {error}")
            return
        # Of a life that was given up here it is no news.
        if notice.incarnation == self._incarnation and self._beginning is None and notice.epoch >= self._since:
            log.warning("worker %s: its epoch %d is over, its work was given away", self._worker, notice.epoch)
            self.superseded_epoch = notice.epoch
            if notice.new_incarnation == self._incarnation:
                # Else it is that of the process by which this one was replaced, and no fence of ours.
                self._know(notice.new_epoch)
            self._over(f"was given up: its epoch {notice.epoch} is over, and its work was given away")

    def _hear_greeting(self, number: int, sent: float, payload: bytes | None) -> None:
        if number != self._number:
            # Of a life that was given up, or that may be by now.
            return
        self.greeting_over.set()
        if payload is None:
            # There is no service just now.
            return
        try:
            answer = _hello_answer.decode(payload)
        except _UNDECODED as error:
            self._problems.report("hello", f"the answer to the hello does not decode: {error}")
            return
        if answer.incarnation not in {self._incarnation, None}:
            return
        if answer.epoch is None:
            self.refusal = answer.error or "the hello was refused"
            self._problems.report("hello", self.refusal)
            self._over(f"was refused: {self.refusal}")
        elif self._beginning is None:
            self._know(answer.epoch)
            self._lookout.proven(sent)
        elif self._former is None or answer.epoch > self._former:
            self.epoch = self._since = answer.epoch
            self.superseded.clear()
            self._lookout.again(sent)
        else:
            # The goodbye was not heard.
            return
        self.greeted.set()
        self._on_begun(answer.ttl)
        self._begun()

    def _begun(self) -> None:
        if self._beginning is not None:
            self._beginning.set_result(None)
            self._beginning = None

    def _over(self, why: str) -> None:
        if not self.superseded.is_set():
            self.superseded.set()
            self._problems.call("on_superseded", self._on_superseded)
        self._lookout.lose(why)

    def _know(self, epoch: int) -> None:
        # They only grow, and what tells of one may come late.
        self.epoch = max(epoch, self.epoch or 0)
