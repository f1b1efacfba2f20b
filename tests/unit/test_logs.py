"""What the service's log says, and what it must not."""

import logging
from collections.abc import Iterator
from typing import Literal

import pytest
import structlog

from liveness.logs import configure


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers, root.level = before


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_values(
    capsys: pytest.CaptureFixture[str], log_format: Literal["json", "console"]
) -> None:
    """Locals are rows of the host's, and the DSN with its password."""
    configure(log_format, "info")
    password = "hunter" + "2"

    try:
        int(f"not {password[:0]}a number")
    except ValueError:
        structlog.get_logger("test").exception("failed")

    said = capsys.readouterr().err
    assert "not a number" in said
    assert "hunter2" not in said
