"""What `liveness sweep` says."""

import pytest
from click.testing import CliRunner

from liveness.answers import Swept
from liveness.cli import sweep
from liveness.settings import Settings


def test_a_name_that_postgres_refuses_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the operator reads of a sweep that went well."""

    async def run(_settings: Settings, *, dry_run: bool) -> Swept:
        return Swept(dry_run=dry_run, stale=["w1", "w2"], refused={"w2": "CheckViolationError"}, ended=1, items=3)

    monkeypatch.setattr(sweep, "run", run)
    said = CliRunner().invoke(sweep.command).output

    assert "refused by Postgres: 'w2' (CheckViolationError)" in said
    assert "ended 1 life, put 3 pieces of work back" in said


def test_what_waits_for_the_end_of_a_pause_would_end_and_what_is_not_listened_for_is_told_with_its_time() -> None:
    """Else a service that has just begun, or that is paused, would seem to find nothing."""
    swept = Swept(dry_run=True, ending=["w1", "w2"], stale=["w3"], too_early=["w4", "w4", "w5"], listen=57.96)

    said = list(sweep.lines(swept))

    assert said[0] == "over, and waiting for the verdict: w1, w2"
    assert said[-1] == "would end 3 lives; for 2 more ask again in 58.0 s; nothing was touched"


def test_a_sweep_that_comes_too_early_says_when_to_ask_again() -> None:
    """It took nothing of those, and says so behind what it did."""
    (*_, last) = sweep.lines(Swept(too_early=["w4"], listen=12.0))

    assert last == "ended 0 lives, put 0 pieces of work back; for 1 more ask again in 12.0 s"
