"""What the service believes when it starts, with a store that is away for a moment."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from liveness.errors import DatabaseAwayError
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.restore import restore
from liveness.store import Former, Life, Store
from liveness.storms import Storms
from tests.unit.makers import lease_of


class Epochs:
    """One life, and a database that goes away after it was read."""

    def __init__(self) -> None:
        self.away = True

    async def restorable(self) -> tuple[list[Life], list[Life]]:
        """Return the life."""
        return [Life("w", 1, "a", 10.0, 5.0)], []

    async def formers(self, _: Sequence[str] | None) -> list[Former]:
        """Return nobody."""
        if self.away:
            raise DatabaseAwayError("away")
        return []


async def test_a_start_that_postgres_breaks_off_leaves_nothing_in_the_book() -> None:
    """It is tried again, and by then others may have ended what was read."""
    book, epochs = LeaseTable(60.0), Epochs()

    async def start() -> None:
        await restore(
            book=book,
            hearing=Hearing(0.0, max_gap=0.5),
            storms=Storms(max_hold=0.0, shuffle=lambda _: None),
            store=cast("Store", SimpleNamespace(epochs=epochs)),
            default_ttl=60.0,
        )

    with pytest.raises(DatabaseAwayError):
        await start()
    assert len(book) == 0

    epochs.away = False
    await start()
    assert len(book) == 1
    # With the newest hello that was heard before.
    assert lease_of(book).hello_uptime == 5.0
