"""The duty that tries rows again which their tables refused to put back: somebody may have mended them.

Nobody waits for them: the reclaim that they were left of is finished, and a new life of the name may have begun.
"""

import structlog

from liveness.errors import DatabaseRefusedError
from liveness.store import Store

log = structlog.get_logger("liveness.refused")


class Refused:
    """Offers refused rows again, those that have waited long enough."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run_once(self) -> int:
        """Try what is due; return how many rows went back, or are not that life's any more.

        Raises DatabaseAwayError, NotLeaderError.
        """
        try:
            return await self._store.reclaims.retry()
        except DatabaseRefusedError as error:
            # Not the rows, which are tried one by one: something about all of them. A traceback would show one of them.
            log.error("retry_refused", cause=str(error))  # noqa: TRY400
            return 0
