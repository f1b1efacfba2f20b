"""Going through very much without keeping the loop from what is more urgent."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

Item = TypeVar("Item")

# What is done with one of them takes some microseconds: the loop is kept for a few milliseconds at most.
AT_ONCE = 1_000


async def in_turns(items: Iterable[Item]) -> AsyncIterator[Item]:
    """Go through `items`, which must not change meanwhile, with a turn for everybody else behind each 1,000."""
    for done, item in enumerate(items, 1):
        yield item
        if done % AT_ONCE == 0:
            await asyncio.sleep(0)
