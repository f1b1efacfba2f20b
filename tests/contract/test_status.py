"""`liveness status` says what the golden answers say, in a line each."""

import msgspec
import pytest

from liveness.answers import StatusAnswer
from liveness.overview import NAMES_SHOWN, lines, marks
from tests.contract.conftest import SCHEMAS

MARKED = (
    "role: leads in term 7, mode: act, hearing: hears, storm: none, outbox: 0 events, Postgres: answers, "
    "NATS: connected"
)


def answer(example: str, **fields: object) -> StatusAnswer:
    """Return a golden answer, with other `fields`."""
    path = SCHEMAS / "examples" / "good" / f"status-answer--{example}.json"
    return msgspec.structs.replace(msgspec.json.decode(path.read_bytes(), type=StatusAnswer), **fields)


def test_all_is_well() -> None:
    """Without anything out of the ordinary there are three lines; the gap at the start is none."""
    assert lines(answer("all-is-well")) == [
        "liveness 0.1.0, mode act, term 7, up 86400 s: ready",
        MARKED,
        "1 lease, 0 waiting for an epoch, 0 for a verdict, 0 events in the outbox",
    ]


def test_storm_and_conflict() -> None:
    """A storm, a conflict and what was not heard have a line each, and the storm is told once."""
    first, marked, counts, storm, conflict, gaps = lines(answer("storm-and-conflict"))
    assert first.endswith(": storm")
    assert ", storm: 1 held, " in marked
    assert "18 for a verdict" in counts
    assert storm.startswith("storm: 18 of 20 workers by the NATS server N")
    assert conflict.endswith("nothing is taken from either: build-7.eu.example, w2")
    assert gaps.startswith("not heard: 12.6 s since the start, in 4 gaps")


def test_deaf() -> None:
    """A service that cannot hear says why, and what follows."""
    first, marked, _, deaf, gaps = lines(answer("deaf"))
    assert ", hearing: deaf, " in marked
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
    first, marked, paused, counts = lines(answer("paused"))
    assert ", mode: paused, " in marked
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
    _, _, _, suspect, wedged, _ = lines(shown)
    assert suspect == "suspect: may be dead, and loses nothing before its ttl: w2"
    assert wedged == "wedged: beats, runs something and gets nothing done: build-7.eu.example"
    assert [worker.state for worker in shown.workers] == ["suspect", "wedged"]


@pytest.mark.parametrize(("names", "more"), [(NAMES_SHOWN, ""), (NAMES_SHOWN + 3, " and 3 more")])
def test_many_conflicts(names: int, more: str) -> None:
    """The line stays one that can be read."""
    line = lines(answer("all-is-well", conflicts=[f"w{number}" for number in range(names)]))[3]
    assert line.endswith(f", w{NAMES_SHOWN - 1}{more}")


def test_nothing_is_a_command_to_the_terminal() -> None:
    """What workers chose is shown without control characters."""
    line = lines(answer("all-is-well", storms=["storm: \x1b[2J\nforged"]))[3]
    assert line == "storm: \ufffd[2J\ufffdforged"


def test_a_bound_that_is_hit_has_a_line() -> None:
    """With what is turned away, and since when how often."""
    (line,) = [line for line in lines(answer("suspect-and-wedged")) if line.startswith("bound hit: ")]

    assert "(max_grants); 4711 since the start" in line


def test_what_is_not_as_it_should_be_is_marked() -> None:
    """Each of them, and nothing else."""
    ill = answer(
        "all-is-well", hearing=False, storms=["storm"], outbox=3, outbox_oldest=61.0, postgres=False, nats=False
    )
    assert [mark.what for mark in marks(answer("all-is-well", leads=False)) if not mark.well] == []
    assert [mark.what for mark in marks(ill) if not mark.well] == ["hearing", "storm", "outbox", "Postgres", "NATS"]
    assert "3 events, the oldest for 61.0 s" in [mark.says for mark in marks(ill)]
