"""Whether the process should be started anew: what `/livez` says. `/readyz` says what is wrong; this, what that mends.

A start forgets what was heard, so it has to be worth that. An outage of NATS or Postgres is no reason, whatever it
keeps from going on: it is waited for, and a new process would wait as well. Only these are:

1. A task that goes on for ever has ended, though nothing ended the service. What it does not expect ends the service
   anyway; but a cancellation that leaks out of a library ends the task alone.
2. A duty has stood still for `STILL_SECONDS` in one step, while nothing that it could wait for was away. Every step in
   Postgres is bounded by time limits of half a minute, and there are a dozen in the longest transaction. A duty that
   takes an hour because there is so much to do makes thousands of them.

The second is believed only if two looks find it, so that a process that itself stood still has its turn between.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import structlog

from liveness.rounds import Round

log = structlog.get_logger("liveness.health")

STILL_SECONDS = 600.0
# Between two looks that believe each other (seconds).
APART_SECONDS = 3.0


class Health:
    """Looks at tasks. `waits()` says whether anything is away that a duty may wait for; `clock` is the loop's.

    `steps` has, by task, when it began or ended a transaction last, by that clock.
    """

    def __init__(
        self, *, clock: Callable[[], float], waits: Callable[[], bool], steps: Mapping[asyncio.Task[None], float]
    ) -> None:
        self.stopping = False
        self._clock = clock
        self._waits = waits
        self._steps = steps
        self._lasting: list[asyncio.Task[None]] = []
        self._rounds: list[tuple[Round, asyncio.Task[None]]] = []
        # What was found to stand still: since when, and when that was found first.
        self._found: dict[str, tuple[float, float]] = {}

    def watch(self, lasting: Iterable[asyncio.Task[None]], rounds: Iterable[tuple[Round, asyncio.Task[None]]]) -> None:
        """Watch these tasks, which go on until the service ends; of `rounds` it is known when they do something."""
        self._rounds = list(rounds)
        self._lasting = [*lasting, *(task for _, task in self._rounds)]

    def ills(self) -> list[str]:
        """Return why a start anew would help, a line each; nearly always empty."""
        if self.stopping:
            return []
        ills = [f"{task.get_name()}: it has ended, and the service has not" for task in self._lasting if task.done()]
        found = {} if self._waits() else self._still()
        now = self._clock()
        before, self._found = self._found, {}
        for name, since in found.items():
            was, at = before.get(name, (None, now))
            at = at if was == since else now
            self._found[name] = since, at
            if now - at >= APART_SECONDS:
                ills.append(
                    f"{name}: it has stood still for {now - since:.0f} s, and nothing that it waits for is away"
                )
        for ill in ills:
            log.error("ill", ill=ill, advice="start it anew")
        return ills

    def _still(self) -> dict[str, float]:
        found = {}
        for duty, task in self._rounds:
            began = duty.under_way_since
            since = None if began is None else max(began, self._steps.get(task, began))
            if since is not None and self._clock() - since > STILL_SECONDS:
                found[duty.name] = since
        return found
