"""The duty that forgets what is older than `retention`: a little at a time, while there is nothing else to do."""

import time
from collections import Counter
from collections.abc import Callable

import structlog

from liveness.errors import DatabaseRefusedError
from liveness.store import BEGINNING, Behind, Store

log = structlog.get_logger("liveness.forgetting")

# Between two batches of one pass, and between two passes.
NEXT_SECONDS, PASS_SECONDS = 1.0, 600.0
# For so long without a look at which nothing else waited, somebody has to be told: old rows pile up.
KEPT_SECONDS = 86_400.0


class Forgetting:
    """Forgets. `waits()` says what else waits for Postgres, empty for nothing; `clock` is the loop's monotonic time."""

    def __init__(self, *, store: Store, waits: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self.interval = NEXT_SECONDS
        self._store = store
        self._waits = waits
        self._clock = clock
        # Since when something else has waited, at each look.
        self._kept_since: float | None = None
        self._behind: Behind = BEGINNING
        # What this pass has forgotten.
        self._gone: Counter[str] = Counter()

    async def run_once(self) -> int:
        """Forget one batch; return how many rows that was. Raises DatabaseAwayError, NotLeaderError.

        First the history, so that no move is there without the life that it was taken from.
        """
        self.interval = NEXT_SECONDS
        if self._is_kept():
            return 0
        aged = self._store.aged
        try:
            for what, forget in (("reclaims", aged.forget_reclaims), ("leaks", aged.forget_leaks)):
                gone = await forget()
                self._gone[what] += gone
                if gone == aged.batch:
                    return gone
            gone, behind = await aged.forget_lives(self._behind)
        except DatabaseRefusedError as error:
            # It keeps no work from anybody, so it is no reason not to be ready.
            log.error("forget_refused", cause=str(error))  # noqa: TRY400 - a traceback would say no more
            self.interval = PASS_SECONDS
            return 0
        self._gone["lives"] += gone
        self._behind = behind or BEGINNING
        if behind is None:
            if self._gone.total():
                log.info(
                    "forgotten", reclaims=self._gone["reclaims"], leaks=self._gone["leaks"], lives=self._gone["lives"]
                )
            self._gone.clear()
            self.interval = PASS_SECONDS
        return gone

    def _is_kept(self) -> bool:
        waits, now = self._waits(), self._clock()
        if not waits:
            self._kept_since = None
            return False
        if self._kept_since is None:
            self._kept_since = now
        if now - self._kept_since >= KEPT_SECONDS:
            self._kept_since = now
            log.warning("not_forgotten", waits_for=waits, advice="liveness status and liveness check say why it waits")
        return True
