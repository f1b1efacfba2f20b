"""How a duty is repeated: do it, wait for its interval or a wake-up, do it again; back off while Postgres is away.

Most duties are the acting replica's: in the others they wait, and are woken when that changes.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence

import structlog

from liveness.errors import DatabaseAwayError, DatabaseRefusedError, NotLeaderError, PausedError

log = structlog.get_logger("liveness.rounds")

# The first wait after a failure, and the longest: what waited through an outage goes on within about a second of its
# end, and a database that is down is asked by each duty less than once a second.
BACKOFF_LEAST, BACKOFF_MOST = 0.25, 1.5


class Away:
    """For how long Postgres has failed some duty or other, in all; as the duties find out. Loop time, in seconds."""

    def __init__(self) -> None:
        self._failing = 0
        self._since = self._before = 0.0

    @property
    def goes_on(self) -> bool:
        """Whether it fails any of them now."""
        return self._failing > 0

    def begins(self, now: float) -> None:
        """Note that it fails one more duty."""
        if not self._failing:
            self._since = now
        self._failing += 1

    def ends(self, now: float) -> None:
        """Note that it serves one of them again."""
        self._failing -= 1
        if not self._failing:
            self._before += now - self._since

    def seconds(self, now: float) -> float:
        """Return for how long, since the start."""
        return self._before + (now - self._since if self._failing else 0.0)


class Round:
    """One duty and when to do it next.

    `run_once` does all the work, whenever `may_run()`. `interval` (seconds) is asked for after each time. Setting
    `woken` makes the next time come at once, except while backing off, so that wake-ups cannot add to an outage of
    Postgres.
    """

    def __init__(
        self,
        name: str,
        run_once: Callable[[], Awaitable[object]],
        interval: Callable[[], float],
        woken: asyncio.Event | None = None,
        may_run: Callable[[], bool] = lambda: True,
        away: Away | None = None,
    ) -> None:
        """`away` is told, for all duties that share it."""
        self.name = name
        self.failing_since: float | None = None
        # What Postgres does not do for it now, and why, as it said last.
        self.cause: str | None = None
        # How often it had to be tried again, since the start.
        self.retries = 0
        # Loop time: since when it does what it is doing; None while it waits for its next time.
        self.under_way_since: float | None = None
        self._away = away or Away()
        self._run_once = run_once
        self._interval = interval
        self._woken = woken or asyncio.Event()
        self._may_run = may_run
        self._stopping = False

    def wake(self) -> None:
        """Let the next time come at once."""
        self._woken.set()

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
                if self._may_run():
                    await self._do()
            except NotLeaderError as error:
                # The lead was lost while this was under way; whoever has it does what is left.
                log.debug("duty_not_ours", duty=self.name, cause=str(error))
            except PausedError as error:
                # Soon `pausing` knows it, too, and this is not tried any more.
                log.debug("duty_paused", duty=self.name, cause=str(error))
            except (DatabaseAwayError, DatabaseRefusedError) as error:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    # The driver, cancelled inside a transaction, complains of the connection instead.
                    raise asyncio.CancelledError from error
                self.retries += 1
                refused = isinstance(error, DatabaseRefusedError)
                self.cause = f"Postgres refuses: {error}" if refused else f"Postgres does not answer: {error}"
                if self.failing_since is None:
                    self.failing_since = asyncio.get_running_loop().time()
                    self._away.begins(self.failing_since)
                    log.warning("duty_failing", duty=self.name, cause=str(error))
                pause = min(BACKOFF_LEAST * 2**failures, BACKOFF_MOST)
                failures = min(failures + 1, 10)
                # Jitter: the duties, and the replicas, must not all come at once when Postgres is back.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
                continue
            # Also where another one acts now, or somebody has paused: nothing waits for Postgres any more.
            if self.failing_since is not None:
                log.info("duty_works_again", duty=self.name)
                self.failing_since, self.cause, failures = None, None, 0
                self._away.ends(asyncio.get_running_loop().time())
            await self._wait()

    async def _do(self) -> None:
        self.under_way_since = asyncio.get_running_loop().time()
        try:
            await self._run_once()
        finally:
            self.under_way_since = None

    async def _wait(self) -> None:
        # Where it is woken already, the loop has its turn all the same.
        await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._interval()):
                await self._woken.wait()


def failing(rounds: Sequence[Round]) -> list[str]:
    """Return a line for each cause by which Postgres fails duties, with their names before it."""
    causes = dict.fromkeys(duty.cause for duty in rounds if duty.cause is not None)
    return [f"{', '.join(duty.name for duty in rounds if duty.cause == cause)}: {cause}" for cause in causes]
