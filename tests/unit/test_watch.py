"""`liveness watch` goes on, whatever it hears."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from liveness.answers import StatusAnswer, StatusRequest
from liveness.cli import watch
from liveness.cli.terminal import console_for
from liveness.errors import NoServiceError
from liveness.settings import Settings
from tests.contract.test_status import answer

ANSWERS: list[StatusAnswer | NoServiceError] = [
    answer("all-is-well"),
    NoServiceError("nobody\x1b[2J answers"),
    answer("storm-and-conflict", conflicts=["\x1b[2J"]),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is asked; answered is one after another."""
    asked: list[Any] = []

    async def ask(_settings: Settings, verb: str, request: object, *_: object) -> StatusAnswer:
        said = ANSWERS[len(asked)]
        asked.append((verb, request))
        if isinstance(said, NoServiceError):
            raise said
        return said

    monkeypatch.setattr(watch, "ask", ask)
    return asked


@pytest.fixture
def watched(asked: list[Any], capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Watch until all has been answered, and return what was printed."""

    async def printed(*, json_output: bool) -> str:
        screen = watch.Screen(console_for(), json_output=json_output)
        await watch.watch(Settings(), StatusRequest(limit=3), screen, every=0.0, times=len(ANSWERS))
        assert asked == [("status", StatusRequest(limit=3))] * len(ANSWERS)
        return capsys.readouterr().out

    return printed


async def test_in_a_pipe(watched: Callable[..., Any]) -> None:
    """One after another, and that there was no answer stands between; nothing in it is a command to a terminal."""
    said = await watched(json_output=False)

    well, away, storm = (said.index(words) for words in (": ready", "not live: nobody", ": storm\n"))
    assert well < away < storm
    assert "\x1b" not in said


async def test_for_scripts(watched: Callable[..., Any]) -> None:
    """An object a line, whatever is in it."""
    well, away, storm = (await watched(json_output=True)).splitlines()

    assert json.loads(well)["leases"] == 1
    assert json.loads(away) == {"error": "nobody\x1b[2J answers"}
    assert json.loads(storm)["conflicts"] == ["\x1b[2J"]
