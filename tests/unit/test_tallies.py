"""What was done is counted as it was committed."""

from typing import Any

from liveness.tallies import Durations, Tallies
from liveness.verdicts import Case, Outcome, Verdict


def case(worker: str, **fields: Any) -> Case:
    """Return a case of a lapse that was measured at 100 s, with what a test does not care about filled in."""
    values: dict[str, Any] = {"epoch": 1, "incarnation": None, "reason": "lapsed", "ttl": 10.0, "measured_at": 100.0}
    return Case(worker=worker, evidence={}, **(values | fields))


def verdict(worker: str, outcome: Outcome, **items: int) -> Verdict:
    """Return Postgres' word on a case."""
    return Verdict(worker=worker, epoch=1, outcome=outcome, items=items)


def test_a_duration_is_counted_in_every_bucket_that_holds_it() -> None:
    """A bound holds what is exactly as long, and the last one everything."""
    durations = Durations((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 70.0):
        durations.note(seconds)

    assert durations.buckets() == [("0.1", 2), ("1.0", 3), ("+Inf", 4)]
    assert durations.sum == 70.65


def test_a_clock_that_runs_backwards_takes_nothing_from_a_sum() -> None:
    """A counter only grows."""
    durations = Durations((0.1,))
    durations.note(-5.0)

    assert (durations.buckets(), durations.sum) == ([("0.1", 1), ("+Inf", 1)], 0.0)


def test_verdicts_are_counted_by_what_they_say() -> None:
    """Only what ended is a life that ended, and only its work went back."""
    tallies = Tallies()
    tallies.settled(
        [case("a"), case("b"), case("c", reason="released", overdue=None), case("d")],
        [
            verdict("a", Outcome.ENDED, workflow=3, task=1),
            verdict("b", Outcome.SPARED),
            verdict("c", Outcome.ENDED, workflow=2),
            verdict("d", Outcome.HELD),
        ],
        101.0,
        asked_at=100.25,
        mode="act",
    )

    assert tallies.verdicts == {
        ("lapsed", "ended"): 1, ("lapsed", "spared"): 1, ("released", "ended"): 1, ("lapsed", "held"): 1,
    }  # fmt: skip
    assert tallies.ended == {("lapsed", "act"): 1, ("released", "act"): 1}
    assert tallies.items == {
        ("workflow", "lapsed", "act"): 3, ("task", "lapsed", "act"): 1, ("workflow", "released", "act"): 2,
    }  # fmt: skip
    assert (tallies.reclaim.sum, tallies.reclaim.buckets()[-1]) == (0.75, ("+Inf", 1))


def test_a_lapse_is_late_by_what_passes_from_its_deadline_to_the_commit() -> None:
    """What was measured before the transaction began goes on until it has ended."""
    tallies = Tallies()
    cases = [case("a", overdue=0.25), case("b", overdue=1.0, measured_at=None), case("c", overdue=None)]
    tallies.settled(cases, [verdict(one.worker, Outcome.ENDED) for one in cases], 100.5, asked_at=100.0, mode="act")

    assert tallies.lateness.sum == 0.75 + 1.0
    assert tallies.lateness.buckets()[-1] == ("+Inf", 2)


def test_a_transaction_that_ended_nothing_is_no_reclaim() -> None:
    """However long it took."""
    tallies = Tallies()
    tallies.settled([case("a")], [verdict("a", Outcome.OVER)], 101.0, asked_at=100.0, mode="act")

    assert tallies.reclaim.buckets()[-1] == ("+Inf", 0)
