"""Batches of which one part is refused."""

from collections.abc import Sequence

import pytest

from liveness.apart import PAUSE, PAUSE_LEAST, REMEMBERED, Refusals, apart
from liveness.errors import DatabaseAwayError, DatabaseRefusedError


@pytest.mark.parametrize("guilty", [set(), {0}, {3, 4}, {9}, set(range(10))])
async def test_only_the_guilty_are_left_out(guilty: set[int]) -> None:
    """Everything else is done, once."""
    done: list[int] = []

    async def act(items: Sequence[int]) -> None:
        if guilty & set(items):
            raise DatabaseRefusedError("refused")
        done.extend(items)

    refused = await apart(range(10), act)

    assert {item for item, _ in refused} == guilty
    assert sorted(done) == sorted(set(range(10)) - guilty)


async def test_an_outage_is_not_halved() -> None:
    """It comes through at the first try."""
    tries = []

    async def act(items: Sequence[int]) -> None:
        tries.append(items)
        raise DatabaseAwayError("away")

    with pytest.raises(DatabaseAwayError):
        await apart(range(10), act)
    assert len(tries) == 1


def test_what_was_refused_waits() -> None:
    """And is offered again after the pause."""
    now = 0.0
    refusals = Refusals(lambda: now)
    refusals.add("w")

    assert "w" in refusals
    assert "other" not in refusals
    now = PAUSE_LEAST
    assert "w" not in refusals


def test_what_is_refused_again_and_again_waits_longer() -> None:
    """Up to the longest pause; after a while without a refusal it is as at first."""
    now = 0.0
    refusals = Refusals(lambda: now)
    pauses = []
    for _ in range(6):
        refusals.add("w")
        began = now
        while "w" in refusals:
            now += PAUSE_LEAST
        pauses.append(now - began)
    assert pauses == [1.0, 2.0, 4.0, 8.0, PAUSE, PAUSE]

    now += PAUSE
    refusals.add("w")
    now += PAUSE_LEAST
    assert "w" not in refusals


def test_refusals_that_have_waited_long_enough_are_not_kept_for_ever() -> None:
    """Names that are never asked for again, however many."""
    now = 0.0
    refusals = Refusals(lambda: now)
    for number in range(REMEMBERED):
        refusals.add(f"w{number}")
    now = PAUSE_LEAST + PAUSE
    refusals.add("late")

    assert len(refusals) == 1
    assert "late" in refusals


def test_a_refusal_is_remembered_with_its_cause() -> None:
    """Also while it is offered again; not for ever."""
    now = 0.0
    refusals = Refusals(lambda: now)
    refusals.add("w", "the host's constraint")
    assert refusals.cause("other") is None
    now = PAUSE_LEAST + PAUSE / 2
    assert "w" not in refusals
    assert refusals.cause("w") == "the host's constraint"
    now = PAUSE_LEAST + PAUSE
    assert refusals.cause("w") is None
