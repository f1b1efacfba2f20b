"""Long walks."""

import asyncio

from liveness.turns import AT_ONCE, in_turns


async def test_everybody_else_has_a_turn_behind_each_piece() -> None:
    """And all items are gone through, in order."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(others())
    seen = [(item, turns) async for item in in_turns(range(2 * AT_ONCE + 1))]
    other.cancel()

    assert [item for item, _ in seen] == list(range(2 * AT_ONCE + 1))
    assert seen[AT_ONCE - 1][1] < seen[AT_ONCE][1] == seen[2 * AT_ONCE - 1][1] < seen[2 * AT_ONCE][1]
