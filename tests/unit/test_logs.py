"""What the service's log says, and what it must not."""

import json
import logging
from typing import Literal

import pytest
import structlog

from liveness.logs import configure
from liveness.spans import carried, span
from tests.traces import collected
from tests.unit.hostile import HOSTILE


def test_a_line_names_the_span_that_it_was_logged_in(capsys: pytest.CaptureFixture[str]) -> None:
    """So that one leads to the other; ours and those of libraries alike, and nothing where nobody collects."""
    configure("json", "info")
    with collected(), span("reclaim"):
        context = carried.get()
        structlog.get_logger("test").info("life_ended")
        logging.getLogger("library").warning("a sentence")
    structlog.get_logger("test").info("stopped")

    inside, library, outside = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert f"00-{inside['trace_id']}-{inside['span_id']}-" == (context or "")[:-2]
    assert library["trace_id"] == inside["trace_id"]
    assert not {"trace_id", "span_id"} & outside.keys()


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_hostile_becomes_a_command_or_another_line(
    capsys: pytest.CaptureFixture[str], log_format: Literal["json", "console"], text: str
) -> None:
    """Of workers' names and of errors that show them; of ours and of what libraries log."""
    configure(log_format, "info")
    log = structlog.get_logger("test")
    log.warning("hello_refused", worker=text, complaint=f"about {text}", names=[text])
    logging.getLogger("library").warning("of %s", text)

    said = capsys.readouterr().err

    assert len(said.splitlines()) == 2
    assert all(line.isprintable() for line in said.splitlines())
    if log_format == "json":
        ours, library = map(json.loads, said.splitlines())
        assert (ours["worker"], ours["names"], library["event"]) == (text, [text], f"of {text}")

    try:
        raise ValueError(text)  # noqa: TRY301 - it has to be raised
    except ValueError:
        log.exception("failed")
    assert all(line.isprintable() for line in capsys.readouterr().err.split("\n"))


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
