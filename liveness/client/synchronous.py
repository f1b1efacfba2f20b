"""The worker's heart for a worker without an event loop: it beats in a thread of its own."""

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Final, Self

from liveness.access import ANYBODY, Access
from liveness.client.heartbeater import Heartbeater
from liveness.client.standing import Standing
from liveness.client.thread import HeartThread, LeftError
from liveness.errors import LostError


class Flag:
    """Something that is set in the life of a heart, to be looked at and waited for by any thread."""

    def __init__(self, event: asyncio.Event, thread: HeartThread, home: Callable[[], object]) -> None:
        self._event = event
        self._thread = thread
        self._home = home

    def is_set(self) -> bool:
        """Return whether it is set just now."""
        self._home()
        return self._event.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set; return whether it is.

        For `timeout` seconds at most, and no longer than until the block is left: nothing is set after that.
        """
        if not self.is_set():
            with contextlib.suppress(TimeoutError, LeftError):
                self._thread.ask(self._event.wait, timeout)
        return self.is_set()


class SyncHeartbeater(Standing):
    """Beats for `worker` while the body of its `with` runs, from a thread of its own.

        with liveness.SyncHeartbeater("nats://127.0.0.1:4222", worker="w1", ttl=10) as heartbeater:
            while not heartbeater.draining:
                ...

    It is a `Heartbeater` in a daemon thread, and all that is said there holds here: the arguments, what entering and
    leaving cost, the goodbye however the body ends (by KeyboardInterrupt, too), the identity that it adopts. Every
    method and property is for any thread. What is awaited there blocks here, with a `timeout` in seconds, and until the
    block is left at most.

    `on_lost`, `on_superseded` and `alive` are called in that thread, and no beat is sent while they run: they have to
    be short, and must not wait for the heartbeater. `on_lost=stop.set` with a threading.Event is a good one.

    C code that holds the interpreter's lock (GIL) for longer than the ttl silences the thread, and the work is given
    away; there, `liveness run` beats from a process of its own.

    A process that was forked off (os.fork, `fork` of multiprocessing, gunicorn's and Celery's workers) has a copy, and
    no thread. All use of the copy is refused with RuntimeError, leaving its block is silent, and the parent goes on
    unharmed. Make one in the child, best with a name of its own: under the parent's it would end the parent's life.

    Raises ValueError for an argument that cannot be used, and RuntimeError when it is entered a second time.
    """

    _of: ClassVar[type[Heartbeater]] = Heartbeater

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
        self._heart = heart = self._of(
            nats_url,
            worker=worker,
            ttl=ttl,
            interval=interval,
            margin=margin,
            incarnation=incarnation,
            on_lost=on_lost,
            on_superseded=on_superseded,
            prefix=prefix,
            alive=alive,
            access=access,
        )
        super().__init__(heart._parts)  # noqa: SLF001 - one heart in two flavours
        self._thread = HeartThread(heart)
        self.greeted: Final = self._flag(heart.greeted)
        """Set when the service has answered the hello: with an epoch, or with a refusal."""
        self.superseded: Final = self._flag(heart.superseded)
        """Set when the service has ended an epoch of this incarnation: drop the work of that epoch."""
        self.lost: Final = self._flag(heart.lost)
        """Set when the work may be given away before long, or was: stop, drop it, and leave or begin again."""

    def died(self, *, exit_code: int | None = None, signal: int | None = None) -> None:
        """Let the goodbye be a certificate: who works under this name was seen to end so."""
        self._heart.died(exit_code=exit_code, signal=signal)

    def beat_now(self) -> None:
        """Wait no longer for the time of the next beat."""
        self._require()
        self._thread.tell(self._heart.beat_now)

    def welcome(self, seconds: float) -> bool:
        """Wait until the hello is answered; return whether it is.

        At most for `seconds`, and not where NATS is away or says that nobody is there to answer.
        """
        self._require()
        with contextlib.suppress(LeftError):
            return self._thread.ask(lambda: self._heart.welcome(seconds), None)
        return self.greeted.is_set()

    def drain(self, timeout: float | None = None) -> bool:
        """Begin nothing any more, beat until the last piece that is held is finished, and say goodbye.

        Return whether that was so within `timeout` seconds; if not, it is still draining, and beats. Not for a thread
        that holds a piece, nor for a signal's handler, which may have interrupted one, nor while a claim is under way.
        Raises RuntimeError before it is entered.
        """
        self._require()
        try:
            self._thread.ask(self._heart.drain, timeout)
        except TimeoutError:
            return False
        except LeftError:
            return not self.held
        return True

    def begin_again(self, timeout: float | None = None) -> None:
        """Say that all that was held is dropped, and return when the next life has begun, with an epoch of its own.

        What the former one held is back in the queue then, and it is neither `lost` nor `superseded` any more. Claim
        nothing before, and let no claim be under way: what it brings is no work of the next life. It takes
        a service, and as long as there is none.

        Raises TimeoutError when that takes longer than `timeout` seconds (it goes on, and may be called again),
        LostError when a newer process bears the name, or this one leaves meanwhile, and RuntimeError where something is
        held still, or it does not beat for itself.
        """
        self._require()
        try:
            self._thread.ask(self._heart.begin_again, timeout)
        except LeftError:
            raise LostError(f"worker {self.worker} cannot begin again: it has left") from None

    def __enter__(self) -> Self:
        self._require()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.stop()

    def _flag(self, event: asyncio.Event) -> Flag:
        return Flag(event, self._thread, self._require)
