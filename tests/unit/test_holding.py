"""What a worker says that it holds."""

import asyncio
import uuid

import pytest

from liveness.client.holding import MOST_RUNNING_BYTES, Holding
from liveness.errors import DrainingError


def test_what_is_held_is_told() -> None:
    """As long as it is, and nothing before anything was: that is not the same as nothing."""
    holding, number = Holding(), uuid.uuid4()
    assert holding.running is None
    with holding.piece("a"), holding.piece(number):
        assert holding.running == ["a", str(number)]
    assert holding.running == []


def test_a_piece_may_be_held_twice() -> None:
    """Claimed anew while the former attempt still stops."""
    holding = Holding()
    first, second = holding.piece("a"), holding.piece("a")
    first.__enter__()
    with second:
        first.__exit__(None, None, None)
        assert list(holding.held) == ["a"]
    assert list(holding.held) == []


def test_a_piece_that_fails_is_not_held_any_more() -> None:
    """What it raises comes out."""
    holding = Holding()
    with pytest.raises(KeyError), holding.piece("a"):
        raise KeyError
    assert holding.running == []


def test_too_many_are_not_told_of() -> None:
    """Rather nothing than a part: what a beat leaves out counts as not held."""
    holding = Holding()
    piece = "x" * (MOST_RUNNING_BYTES // 2 - 3)
    with holding.piece(piece):
        assert holding.running is not None
        with holding.piece("y" * len(piece)):
            assert holding.running is not None
            with holding.piece("z"):
                assert holding.running is None
                assert len(holding.held) == 3
            assert holding.running is not None


@pytest.mark.parametrize("work_id", ["", "\ud800"])
def test_ids_that_cannot_be_told(work_id: str) -> None:
    """They would silence the beats, so they are refused where they are given."""
    holding = Holding()
    with pytest.raises(ValueError, match="work id"), holding.piece(work_id):
        pass
    assert holding.held == ()


async def test_nothing_is_begun_while_it_drains() -> None:
    """And it is idle when the last piece that was held is not any more."""
    holding = Holding()
    with holding.piece("a"):
        holding.draining = True
        idle = asyncio.create_task(holding.idle())
        with pytest.raises(DrainingError, match="b is not to be begun"), holding.piece("b"):
            pass
        await asyncio.wait({idle}, timeout=0)
        assert not idle.done()
    await idle


def test_progress_grows() -> None:
    """And is not told before there is any."""
    holding = Holding()
    assert holding.progress is None
    holding.progressed()
    holding.progressed()
    assert holding.progress == 2
