"""The duty that finishes what one transaction could not, with a store that notes what it is asked."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import cast

import pytest

from liveness.errors import DatabaseAwayError
from liveness.finish import Finish, Finished
from liveness.store import Progress, Store


class Reclaims:
    """Has so many rows left for each of the next transactions; `away`: and then Postgres goes away."""

    def __init__(self, *left: int, away: bool = False) -> None:
        self.left = list(left)
        self.away = away
        self.finish: Finish | None = None
        self.seen: list[bool] = []
        self.asked = 0

    async def unfinished(self) -> list[str]:
        """Return the one name that there is as long as it has something."""
        self.asked += 1
        return ["w"] if self.left else []

    async def finish_some(self, progress: Progress, _names: Sequence[str]) -> None:
        """Put the next rows back, and note whether others were told that more wait."""
        assert self.finish is not None
        self.seen.append(self.finish.more)
        if not self.left and self.away:
            raise DatabaseAwayError("away")
        progress.items = progress.looked_at = self.left.pop(0) if self.left else 0


def finish_store(reclaims: Reclaims) -> Store:
    """Return a store that asks there."""
    asked = SimpleNamespace(unfinished=reclaims.unfinished, finish=reclaims.finish_some)
    return cast("Store", SimpleNamespace(reclaims=asked))


def finish_of(reclaims: Reclaims) -> Finish:
    """Make the duty."""
    reclaims.finish = Finish(finish_store(reclaims), lambda: 0.0)
    return reclaims.finish


async def test_it_is_known_whether_rows_wait_behind_those_that_were_put_back() -> None:
    """From the first chunk to the last."""
    reclaims = Reclaims(5, 5, 1)
    finish = finish_of(reclaims)

    assert await finish.run_once() == Finished(items=11)
    assert reclaims.seen == [False, True, True, True]
    # Who has something left is asked for before and afterwards, and not for each chunk.
    assert reclaims.asked == 2
    assert not finish.more


async def test_a_pass_that_ends_does_not_speak_for_another() -> None:
    """A command's goes on beside the duty's."""
    inner, outer = Reclaims(5, 5), Reclaims(5, 5, 5)
    finish = finish_of(outer)
    put_back = outer.finish_some

    async def both(progress: Progress, names: Sequence[str]) -> None:
        if len(outer.seen) == 2:
            asked = finish._store
            finish._store = finish_store(inner)
            inner.finish = finish
            await finish.run_once()
            finish._store = asked
        await put_back(progress, names)

    outer.finish_some = both  # type: ignore[assignment, method-assign]
    finish._store = finish_store(outer)
    await finish.run_once()

    assert outer.seen == [False, True, True, True]
    assert inner.seen == [True, True, True]
    assert not finish.more


async def test_nothing_waits_while_postgres_is_away() -> None:
    """The news must not wait for what nobody can say when it goes on."""
    reclaims = Reclaims(5, away=True)
    finish = finish_of(reclaims)

    with pytest.raises(DatabaseAwayError):
        await finish.run_once()
    assert reclaims.seen == [False, True]
    assert not finish.more
