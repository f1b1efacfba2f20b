"""What the service believes when it starts: whoever Postgres knows of may live, and is owed a ttl of listening.

A name gets a lease if it has an epoch of ours that has not ended, a registry row that is up, or RUNNING work: so a
restart takes nothing from a worker with a long ttl, from one that the registry does not know, or from one that it
marks OFFLINE by mistake.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import chain

import msgspec
import structlog

from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.store import Life, Store
from liveness.storms import Storms
from liveness.subjects import name_fault

log = structlog.get_logger("liveness.restore")

# Leases that are made in one go.
BATCH = 5_000


class Restored(msgspec.Struct, frozen=True):
    """What was restored: leases of lives that we knew, leases of names that may live, and names left to the sweep."""

    open_lives: int
    names: int
    left: int


async def restore(
    *,
    book: LeaseTable,
    hearing: Hearing,
    storms: Storms,
    store: Store,
    default_ttl: float,
    owns: Callable[[str], bool] | None = None,
) -> Restored:
    """Put into the book whoever may live, with the ttl of their life, else `default_ttl` (seconds).

    Of them those that are ours, as `owns(worker)` says; None: all.

    All of them or, raising DatabaseAwayError, nobody: what was read before others acted would be believed later.
    """
    open_lives, others = await store.epochs.restorable()
    formers = await store.epochs.formers(None)
    names, left = distinct(open_lives, others)
    if owns is not None:
        names = [life for life in names if owns(life.worker)]
        # The open lives are those of our share, and a name that differs in case may be of another.
        ambiguous = await store.host.ambiguous([life.worker for life in names])
        names = [life for life in names if life.worker not in ambiguous]
        left += len(ambiguous)
    opened = len(open_lives)
    # Each is dropped as soon as its lease is made: a million of both at once would be half as much memory again.
    open_lives.reverse()
    while open_lives:
        life = open_lives.pop()
        lease = book.restore(life.worker, hearing.now, life.ttl or default_ttl, life.epoch, life.incarnation)
        lease.note_newest(life.hello_uptime)
        if len(open_lives) % BATCH == 0:
            # All of them would keep the loop from answering that we live. Nobody is heard yet.
            await asyncio.sleep(0)
    for life in names:
        # The last life's ttl may be all that we know of a worker which rarely beats; to wait longer takes nothing.
        book.restore(life.worker, hearing.now, max(life.ttl or 0.0, default_ttl))
    book.incarnations.restore((one.worker, one.incarnation, one.epoch) for one in formers)
    storms.restored(len(book))
    restored = Restored(opened, len(names), left)
    log.info("restored", **msgspec.structs.asdict(restored))
    return restored


def distinct(open_lives: list[Life], others: list[Life]) -> tuple[list[Life], int]:
    """Return those of `others` that can be heard and are nobody else's name but for case, and how many cannot. Pure.

    The sweep reports the ones left out; it takes nothing of them while they are ambiguous.
    """
    folded = {life.worker.lower() for life in others}
    spellings = Counter(name for life in chain(open_lives, others) if (name := life.worker.lower()) in folded)
    names = [life for life in others if name_fault(life.worker) is None and spellings[life.worker.lower()] == 1]
    return names, len(others) - len(names)
