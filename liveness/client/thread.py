"""A thread of its own for a heart, with an event loop of its own, and how other threads speak to it.

The rules that this file keeps:

1. Nobody waits for it for ever: its end is waited for about as long as a goodbye may take, it is a daemon, and what it
   asks of others (the address of a NATS server) is asked in daemons, too. So the interpreter ends.
2. Whoever waits for something in it gets an answer: the thing, or `LeftError` once it is over.
3. Nobody waits for it within it: that would be for ever.
"""

import asyncio
import atexit
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from liveness.bounded import CANCEL_SECONDS
from liveness.client.heartbeater import ENTER_SECONDS, LEAVE_SECONDS, Heartbeater
from liveness.client.problems import log

# Beyond what leaving costs on a loop: for a busy machine to end a thread.
_SLACK_SECONDS: Final = 0.5

Answer = TypeVar("Answer")


class LeftError(Exception):
    """The heart has left, and answers nothing any more."""


class HeartThread:
    """Runs once, from `start` to `stop`."""

    def __init__(self, heart: Heartbeater) -> None:
        self._heart = heart
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entered: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._leave = asyncio.Event()
        # Held while a question is handed over, so that none comes behind the end. By a handler of a signal, too, which
        # may have interrupted one that is.
        self._lock = threading.RLock()
        self._over = False

    def start(self) -> None:
        """Enter the heart, and return when it is. Raises what that raises, and RuntimeError the second time."""
        if self._thread is not None:
            raise RuntimeError("a SyncHeartbeater is one life and is entered once: make another one")
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._run, name=f"heartbeat of {self._heart.worker}", daemon=True)
        # For who never leaves the block. Threads that the interpreter waits for have ended by then.
        atexit.register(self.stop)
        try:
            self._thread.start()
            self._entered.result()
        except BaseException:
            # Interrupted: there will be no body, and so no end of it either.
            self.stop()
            raise

    def stop(self) -> None:
        """Leave the heart, and wait until the thread has ended, or should have."""
        thread = self._thread
        if not self._heart._forked and thread is not None and thread.is_alive():  # noqa: SLF001 - one heart in two parts
            self.tell(self._leave.set)
            if thread is not threading.current_thread():
                entering = 0.0 if self._entered.done() else ENTER_SECONDS
                thread.join(entering + LEAVE_SECONDS + CANCEL_SECONDS + _SLACK_SECONDS)
                if thread.is_alive():
                    log.warning("worker %s: its thread does not end, so its goodbye may be lost", self._heart.worker)
        atexit.unregister(self.stop)

    def tell(self, act: Callable[[], object]) -> None:
        """Have `act` called in the thread; nothing is, once it is over."""
        with self._lock:
            if self._loop is not None and not self._over:
                self._loop.call_soon_threadsafe(act)

    def ask(self, question: Callable[[], Coroutine[Any, Any, Answer]], seconds: float | None) -> Answer:
        """Run `question()` in the thread and return its answer; one that is given up is cancelled.

        Raises TimeoutError after so many `seconds`, LeftError once the heart has left, and RuntimeError before it is
        entered, and in the thread itself.
        """
        if self._thread is None or self._loop is None:
            raise RuntimeError("a SyncHeartbeater that was not entered has nobody to ask: use it in a `with`")
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "the heartbeat's own thread would wait for itself: do not wait in on_lost, on_superseded or alive, but "
                "tell another thread"
            )
        with self._lock:
            if self._over:
                raise LeftError
            answer = asyncio.run_coroutine_threadsafe(question(), self._loop)
        try:
            return answer.result(seconds)
        except concurrent.futures.CancelledError:
            raise LeftError from None
        finally:
            # By whoever interrupts us, too.
            answer.cancel()

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None  # noqa: S101 - for the type checker: `start` has made it
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        try:
            async with self._heart:
                self._entered.set_result(None)
                await self._leave.wait()
        except Exception as error:
            if self._entered.done():
                raise
            self._entered.set_exception(error)
        finally:
            with self._lock:
                self._over = True
            # What was asked before that has begun then, and is cancelled with all that is left.
            await asyncio.sleep(0)


class _Loop(asyncio.SelectorEventLoop):
    """Looks addresses up in daemons: that may take half a minute, and an executor's threads are waited for."""

    def run_in_executor(  # type: ignore[override]
        self, _executor: concurrent.futures.Executor | None, func: Callable[..., Answer], *args: Any
    ) -> "asyncio.Future[Answer]":
        result: concurrent.futures.Future[Answer] = concurrent.futures.Future()

        def run() -> None:
            try:
                result.set_result(func(*args))
            except BaseException as error:  # noqa: BLE001 - it belongs to whoever waits for the result
                result.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return asyncio.wrap_future(result, loop=self)
