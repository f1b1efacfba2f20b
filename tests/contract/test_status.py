"""`liveness status` says what the golden answers say, in a line each."""

import msgspec
import pytest

from liveness.answers import StatusAnswer
from liveness.cli.status import NAMES_SHOWN, lines
from tests.contract.conftest import SCHEMAS


def answer(example: str, **fields: object) -> StatusAnswer:
    """Return a golden answer, with other `fields`."""
    path = SCHEMAS / "examples" / "good" / f"status-answer--{example}.json"
    return msgspec.structs.replace(msgspec.json.decode(path.read_bytes(), type=StatusAnswer), **fields)


def test_all_is_well() -> None:
    """Without anything out of the ordinary there are two lines; the gap at the start is none."""
    assert lines(answer("all-is-well")) == [
        "liveness 0.1.0, mode act, term 7, up 86400 s: ready",
        "1 lease, 0 waiting for an epoch, 0 for a verdict, 0 events in the outbox",
    ]


def test_storm_and_conflict() -> None:
    """A storm, a conflict and what was not heard have a line each, and the storm is told once."""
    first, counts, storm, conflict, gaps = lines(answer("storm-and-conflict"))
    assert first.endswith(": storm")
    assert "18 for a verdict" in counts
    assert storm.startswith("storm: 18 of 20 workers by the NATS server N")
    assert conflict.endswith("nothing is taken from either: build-7.eu.example, w2")
    assert gaps.startswith("not heard: 12.6 s since the start, in 4 gaps")


def test_deaf() -> None:
    """A service that cannot hear says why, and what follows."""
    first, _, deaf, gaps = lines(answer("deaf"))
    assert first.endswith(": NATS: not connected, so nothing can be heard")
    assert deaf == "deaf: nothing can be heard now, so no lease lapses"
    assert gaps.startswith("not heard: 61.3 s")


def test_trouble_beside_a_storm() -> None:
    """A storm hides no other trouble."""
    storm = answer("storm-and-conflict").storms[0]
    first = lines(answer("storm-and-conflict", troubles=[storm, "expiry: Postgres does not answer"]))[0]
    assert first.endswith(": expiry: Postgres does not answer")


def test_paused() -> None:
    """That nothing is taken stands behind the state, with who waits for it; the service is as ready as ever."""
    first, paused, counts = lines(answer("paused"))
    assert first.endswith(": ready")
    assert paused == (
        "paused by ops@desk-3 since 2026-11-27T03:12:04Z (12 min ago), until `liveness resume`: "
        "workers are given up that live; 2 wait for that"
    )
    assert "2 for a verdict" in counts


def test_without_a_term() -> None:
    """A replica whose term is over shows none."""
    assert lines(answer("term-over"))[0] == "liveness 0.1.0, mode act, up 86400 s: ready"


def test_suspect_and_wedged() -> None:
    """Workers that live and are not well have a line for each kind; their state says the same in the table."""
    shown = answer("suspect-and-wedged")
    _, _, suspect, wedged, _ = lines(shown)
    assert suspect == "suspect: may be dead, and loses nothing before its ttl: w2"
    assert wedged == "wedged: beats, runs something and gets nothing done: build-7.eu.example"
    assert [worker.state for worker in shown.workers] == ["suspect", "wedged"]


@pytest.mark.parametrize(("names", "more"), [(NAMES_SHOWN, ""), (NAMES_SHOWN + 3, " and 3 more")])
def test_many_conflicts(names: int, more: str) -> None:
    """The line stays one that can be read."""
    line = lines(answer("all-is-well", conflicts=[f"w{number}" for number in range(names)]))[2]
    assert line.endswith(f", w{NAMES_SHOWN - 1}{more}")


def test_nothing_is_a_command_to_the_terminal() -> None:
    """What workers chose is shown without control characters."""
    line = lines(answer("all-is-well", storms=["storm: \x1b[2J\nforged"]))[2]
    assert line == "storm: \ufffd[2J\ufffdforged"


def test_a_bound_that_is_hit_has_a_line() -> None:
    """With what is turned away, and since when how often."""
    (line,) = [line for line in lines(answer("suspect-and-wedged")) if line.startswith("bound hit: ")]

    assert "(max_grants); 4711 since the start" in line
