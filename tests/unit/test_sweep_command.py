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
