"""The duty that forgets what is older than `retention`: a little at a time, while there is nothing else to do."""

from collections import Counter
from collections.abc import Callable

import structlog

from liveness.errors import DatabaseRefusedError
from liveness.store import BEGINNING, Behind, Store

log = structlog.get_logger("liveness.forgetting")

# Between two batches of one pass, and between two passes.
NEXT_SECONDS, PASS_SECONDS = 1.0, 600.0


class Forgetting:
    """Forgets. `quiet()` says whether nothing else waits for Postgres."""

    def __init__(self, *, store: Store, quiet: Callable[[], bool]) -> None:
        self.interval = NEXT_SECONDS
        self._store = store
        self._quiet = quiet
        self._behind: Behind = BEGINNING
        # What this pass has forgotten.
        self._gone: Counter[str] = Counter()

    async def run_once(self) -> int:
        """Forget one batch; return how many rows that was. Raises DatabaseAwayError, NotLeaderError.

        First the history, so that no move is there without the life that it was taken from.
        """
        self.interval = NEXT_SECONDS
        if not self._quiet():
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
