"""The duty that finishes reclaims which one transaction could not: large ones, and rows that somebody held locked.

What is left is written down in Postgres, so a pass needs no memory: it can be killed between any two chunks, and any
replica can go on.
"""

from collections.abc import Callable, Sequence
from itertools import islice

import msgspec
import structlog

from liveness.apart import Refusals, apart
from liveness.errors import ContestedError, DatabaseRefusedError
from liveness.spans import span
from liveness.store import Progress, Store, Walk

log = structlog.get_logger("liveness.finish")


# Rows of one life that are named in the log when their tables refuse them; of more, it says how many they are.
TOLD_MOST = 20
# Reclaims that the span of one pass is linked to, as those that it finishes.
LINKED = 100


class Finished(msgspec.Struct):
    """What one pass did: rows put back, and names whose reclaims still are not finished."""

    items: int = 0
    unfinished: int = 0


class Finish:
    """Puts back what is left. `clock` is the loop's monotonic time."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._refusals = Refusals(clock)
        # Passes with rows behind those that were put back last; a command's goes on beside the duty's.
        self._with_more = 0

    @property
    def more(self) -> bool:
        """Whether rows wait behind those that were put back last."""
        return self._with_more > 0

    async def run_once(self) -> Finished:
        """Go once over everything that unfinished reclaims have left, a chunk to a transaction."""
        done = Finished()
        names = [name for name in await self._store.reclaims.unfinished() if name not in self._refusals]
        for name, error in await apart(names, lambda some: self._go_over(some, done)):
            self._refusals.add(name)
            log.error("reclaim_refused", worker=name, cause=str(error))
        done.unfinished = len(await self._store.reclaims.unfinished()) if names else 0
        return done

    async def _go_over(self, names: Sequence[str], done: Finished) -> None:
        progress, before = Progress(), done.items
        with span("finish", {"db.system.name": "postgresql", "liveness.lives": len(names)}, kind="client") as told:
            try:
                await self._put_back(names, progress, done)
            finally:
                told.note({"liveness.items": done.items - before})
                told.link(islice(progress.traceparents, LINKED))

    async def _put_back(self, names: Sequence[str], progress: Progress, done: Finished) -> None:
        more = False
        try:
            while True:
                try:
                    await self._store.reclaims.finish(progress, names)
                except ContestedError:
                    raise
                except DatabaseRefusedError:
                    if len(names) != 1:
                        raise
                    done.items += await self._go_over_apart(names[0])
                    return
                done.items += progress.items
                if not progress.looked_at:
                    return
                if progress.items and not more:
                    more = True
                    self._with_more += 1
                progress.items = 0
        finally:
            self._with_more -= more

    async def _go_over_apart(self, name: str) -> int:
        walk, refused = Walk(), 0
        kinds = self._store.reclaims.kinds
        while not walk.done >= kinds:
            await self._store.reclaims.finish_apart(walk, name)
            # Told when it is committed.
            for left, cause in walk.refused[: max(TOLD_MOST - refused, 0)]:
                log.error("row_refused", worker=name, work=left.work, id=left.id, cause=cause)
            refused += len(walk.refused)
            walk.refused.clear()
        if refused > TOLD_MOST:
            log.error("rows_refused", worker=name, rows=refused, told=TOLD_MOST)
        if walk.unmarked is not None:
            raise DatabaseRefusedError(f"the registry refuses to mark {name}: {walk.unmarked}")
        return walk.items
