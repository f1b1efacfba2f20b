"""What the workers of `examples/` do in moments that no process can be brought into."""

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import pytest

import liveness
from liveness.testing import FakeHeartbeater
from tests.conftest import SOON

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(path: str) -> ModuleType:
    """Return the worker at `path` as a module."""
    spec = importlib.util.spec_from_file_location("example", EXAMPLES / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class EnoughError(Exception):
    """The test is over."""


class SlowDatabase:
    """The worker's time is up while it claims; what it would finish is noted."""

    def __init__(self) -> None:
        self.heartbeater: FakeHeartbeater | None = None
        self.claims = 0
        self.finished: list[str] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def fetchrow(self, *_: object) -> dict[str, object]:
        """Claim, and be lost before the answer is there; the next claim ends the test."""
        assert self.heartbeater is not None
        self.claims += 1
        if self.claims > 1:
            raise EnoughError
        self.heartbeater.lose()
        return {"id": "x", "version": 1}

    async def execute(self, _statement: str, work: str, *_: object) -> str:
        """Finish."""
        self.finished.append(work)
        return "UPDATE 1"


async def test_a_claim_that_outlasts_its_time_begins_no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """There was no job to cancel yet when it was lost. It drops the work, and begins a new life before it claims."""
    database = SlowDatabase()

    def heartbeater(*_: object, **options: Any) -> FakeHeartbeater:
        database.heartbeater = FakeHeartbeater(**options)
        return database.heartbeater

    async def works(_seconds: float) -> None:
        raise AssertionError("it works on what may be another's")

    worker = example("python-asyncpg/worker.py")
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setattr(worker, "liveness", SimpleNamespace(Heartbeater=heartbeater, LostError=liveness.LostError))
    monkeypatch.setattr(worker.asyncpg, "create_pool", lambda *_, **__: database)
    monkeypatch.setattr(worker, "asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": works}))
    with pytest.raises(EnoughError):
        async with asyncio.timeout(SOON):
            await worker.main("w1")
    assert database.finished == []
    assert database.heartbeater is not None
    assert database.heartbeater.epoch == 2
