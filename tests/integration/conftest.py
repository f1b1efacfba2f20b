"""What the integration tests share: lives that are granted and cases that end them."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from liveness.store import Life, Progress, Store
from liveness.verdicts import Case
from tests.conftest import SOON
from tests.integration.running import client, news, serve

__all__ = ["client", "news", "serve"]

Grant = Callable[..., Coroutine[Any, Any, int]]


class Logs(logging.Handler):
    """What the client logs, to be awaited."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: asyncio.Queue[str] = asyncio.Queue()
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        self.seen.append(record.getMessage())
        self.lines.put_nowait(record.getMessage())

    async def until(self, words: str) -> None:
        """Wait for a line with these words."""
        async with asyncio.timeout(SOON):
            while words not in await self.lines.get():
                pass


def standing(store: Store) -> Callable[[], float]:
    """Return a clock that stands still, after letting the store reckon by it, too."""

    def clock() -> float:
        return 0.0

    store.leader._clock = store.reclaims._clock = clock
    return clock


def case(worker: str, epoch: int | None, **fields: Any) -> Case:
    """Return a case with everything that a test does not care about filled in."""
    values: dict[str, Any] = {
        "incarnation": None,
        "reason": "lapsed",
        "ttl": 10.0,
        "silent_for": 10.5,
        "overdue": 0.5,
        "evidence": {"why": "a test says so"},
    }
    return Case(worker=worker, epoch=epoch, **(values | fields))


async def finish_chunk(store: Store, progress: Progress) -> None:
    """Put back the next chunk of everything that is not finished."""
    await store.reclaims.finish(progress, await store.reclaims.unfinished())


@pytest.fixture
def grant(store: Store) -> Grant:
    """Grant an epoch to a name and return it."""

    async def granted(worker: str, ttl: float = 10.0, incarnation: str | None = None) -> int:
        return (await store.epochs.grant([Life(worker, None, incarnation, ttl)])).epochs[worker]

    return granted
