"""The duty that finishes reclaims which one transaction could not: large ones, and rows that somebody held locked.

What is left is written down in Postgres, so a pass needs no memory: it can be killed between any two chunks, and any
replica can go on.
"""

import msgspec

from liveness.store import Progress, Store


class Finished(msgspec.Struct, frozen=True):
    """What one pass did: rows put back, and reclaims that still are not finished."""

    items: int
    unfinished: int


class Finish:
    """Puts back what is left."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run_once(self) -> Finished:
        """Go once over everything that unfinished reclaims have left, a chunk to a transaction."""
        progress = Progress()
        while True:
            await self._store.reclaims.finish(progress)
            if not progress.looked_at:
                return Finished(progress.items, progress.unfinished)
