"""What `liveness check` exits with, so that a roll-out can go by it."""

from collections.abc import Sequence

import pytest
from click.testing import CliRunner

from liveness.cli import check
from liveness.findings import Finding, Weight
from liveness.settings import Settings


@pytest.mark.parametrize(
    ("found", "arguments", "code"),
    [
        ([], [], 0),
        ([Weight.BETTER], [], 1),
        ([Weight.BETTER], ["--least", "bad"], 0),
        ([Weight.BAD, Weight.BETTER], ["--least", "bad"], 1),
        ([Weight.BROKEN], ["--least", "bad"], 1),
        ([Weight.BAD], ["--least", "broken", "--json"], 0),
        ([Weight.BROKEN, Weight.BAD], ["--least", "broken", "--json"], 1),
    ],
)
def test_it_fails_for_what_matters_so_much(
    found: Sequence[Weight], arguments: Sequence[str], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says all of it, whatever it exits with."""

    async def check_all(_settings: Settings, _seconds: float) -> list[Finding]:
        return [Finding(check="x", weight=weight, about="a table", says="so") for weight in found]

    monkeypatch.setattr(check, "check_all", check_all)
    monkeypatch.setattr(check, "settings_for", lambda **_: Settings())
    monkeypatch.setattr(check, "configure", lambda *_: None)
    ran = CliRunner().invoke(check.command, arguments)

    assert ran.exit_code == code
    assert ran.output.count("a table") == len(found)
