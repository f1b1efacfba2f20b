"""How a duty is repeated: do it, wait for its interval or a wake-up, do it again; back off while Postgres is away."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable

import structlog

from liveness.errors import DatabaseAwayError, DatabaseRefusedError

log = structlog.get_logger("liveness.rounds")

# The first wait after a failure, and the longest: soon enough after an outage, and no storm during it.
BACKOFF_LEAST, BACKOFF_MOST = 0.25, 5.0


class Round:
    """One duty and when to do it next.

    `run_once` does all the work. `interval` (seconds) is asked for after each time. Setting `woken` makes the next time
    come at once, except while backing off, so that wake-ups cannot turn an outage of Postgres into a storm.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[], Awaitable[object]],
        interval: Callable[[], float],
        woken: asyncio.Event | None = None,
    ) -> None:
        self.name = name
        self.failing_since: float | None = None
        self._run_once = run_once
        self._interval = interval
        self._woken = woken or asyncio.Event()
        self._stopping = False

    def stop(self) -> None:
        """Let `keep` return once what is under way is done."""
        self._stopping = True
        self._woken.set()

    async def keep(self) -> None:
        """Repeat until stopped. Only what the duty does not expect gets out, and ends the service."""
        failures = 0
        while not self._stopping:
            self._woken.clear()
            try:
                await self._run_once()
            except (DatabaseAwayError, DatabaseRefusedError) as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    # The driver, cancelled inside a transaction, complains of the connection instead.
                    raise asyncio.CancelledError from error
                if self.failing_since is None:
                    self.failing_since = asyncio.get_running_loop().time()
                    log.warning("duty_failing", duty=self.name, cause=str(error))
                pause = min(BACKOFF_LEAST * 2**failures, BACKOFF_MOST)
                failures = min(failures + 1, 10)
                # Jitter: the duties, and the replicas, must not all come at once when Postgres is back.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
            else:
                if self.failing_since is not None:
                    log.info("duty_works_again", duty=self.name)
                    self.failing_since, failures = None, 0
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), self._interval())
