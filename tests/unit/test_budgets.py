"""Which piece of work is to blame for a worker's death."""

import random

import pytest

from liveness.budgets import DEATHS_SHOWN, OTHERS_SHOWN, Death, Suspect, evidence, guilty, story, whole
from liveness.cases import is_crash
from liveness.lease import Ending
from tests.quarantine.experiment import at_its_budget, figures, trial


def suspect(id: str, crash_count: int, worker: str = "w1", suspects: int = 1) -> Suspect:  # noqa: A002 - the field
    """Return a suspect with what matters here."""
    return Suspect(
        id=id,
        kind=None,
        queue=None,
        worker=worker,
        epoch=1,
        reclaim_count=crash_count,
        crash_count=crash_count,
        suspects=suspects,
    )


def blamed(*suspects: Suspect, budget: int = 3) -> set[str]:
    """Return the ids of those to blame."""
    return {one.id for one in guilty(suspects, budget)}


def test_what_has_fewer_crashes_than_its_budget_is_never_to_blame() -> None:
    """However alone it was."""
    assert blamed(suspect("a", 2)) == set()


def test_what_has_most_crashes_is_to_blame() -> None:
    """Others that have their budget behind them, but fewer, are not."""
    assert blamed(suspect("a", 4), suspect("b", 3), suspect("c", 1)) == {"a"}


def test_of_those_with_as_many_none_is_to_blame() -> None:
    """Nor is one with fewer: the worst suspects are those two."""
    assert blamed(suspect("a", 4), suspect("b", 4), suspect("c", 3)) == set()


def test_with_twice_the_budget_all_are_to_blame() -> None:
    """They may not kill for ever; one that has less is none of them."""
    assert blamed(suspect("a", 6), suspect("b", 6), suspect("c", 5)) == {"a", "b"}


def test_each_death_is_judged_by_itself() -> None:
    """Of two workers that died at once, each has its own suspects."""
    assert blamed(suspect("a", 3), suspect("b", 3, worker="w2"), suspect("c", 3, worker="w2")) == {"a"}


def test_a_budget_of_one_blames_at_once_whoever_was_alone() -> None:
    """And nobody who was not, until the second death."""
    assert blamed(suspect("a", 1), budget=1) == {"a"}
    assert blamed(suspect("a", 1), suspect("b", 1), budget=1) == set()


def test_where_the_list_was_cut_those_at_its_end_are_not_judged() -> None:
    """There may be more with as many crashes, and then nobody is the worst."""
    suspects = [suspect("a", 4), suspect("b", 3)]

    assert whole(suspects, 3) == suspects
    assert whole(suspects, 2) == suspects[:1]


def test_the_evidence_is_bounded() -> None:
    """It has to fit into a message, however much ran there and however many died."""
    together = [suspect(str(number), 100 - number // 50) for number in range(100)]
    deaths = [Death(worker="w0", epoch=number, reason="lapsed", at="then", suspects=1) for number in range(50)]

    told = evidence(together[0], together, deaths, key="workflow_id", budget=3)

    assert told["workflow_id"] == "0"
    assert len(told["former_crashes"]) == DEATHS_SHOWN
    assert [other["id"] for other in told["others"]] == [str(number) for number in range(1, OTHERS_SHOWN + 1)]


def test_the_story_names_every_crash() -> None:
    """In one line, for whoever finds it in the host's table."""
    deaths = [Death(worker="w0", epoch=1, reason="died", at="2026-01-07T15:51:15Z", suspects=3)]

    assert story(suspect("a", 2, suspects=2), deaths, window=86_400.0) == (
        "set aside by liveness: 2 workers died within 24 h while they ran this; the last first: "
        "w1 (beside 1 other), w0 at 2026-01-07T15:51:15Z (beside 2 others)"
    )


def ending(reason: str, details: dict[str, object] | None = None, *, let_go: bool = False) -> Ending:
    """Return an ending with what matters here."""
    return Ending(
        reason=reason,
        at=0.0,
        proof=reason != "lapsed",
        incarnation=None,
        last_beat=None,
        deadline=0.0,
        ttl=1.0,
        details=details,
        let_go=let_go,
    )


@pytest.mark.parametrize("reason", ["lapsed", "died", "restarted"])
def test_an_end_that_nobody_wanted_is_a_crash(reason: str) -> None:
    """Whoever found it."""
    assert is_crash(ending(reason))


@pytest.mark.parametrize("reason", ["released", "operator", "orphaned", "a reason of a later version"])
def test_an_end_that_somebody_wanted_is_none(reason: str) -> None:
    """Nor is one of which nobody knows what it means."""
    assert not is_crash(ending(reason))


def test_what_a_storm_let_go_is_no_crash() -> None:
    """What takes nearly everybody at once is no single piece of work."""
    assert not is_crash(ending("lapsed", let_go=True))


@pytest.mark.parametrize(
    ("details", "crash"),
    [
        ({"signal": 9}, True),
        ({"signal": 11}, True),
        ({"signal": 15}, False),
        ({"signal": 2}, False),
        ({"signal": 1}, False),
        ({"exit_code": 1, "signal": None}, True),
        ({"exit_code": 137}, True),
        ({"exit_code": 143}, False),
        ({"exit_code": 130, "signal": None}, False),
        ({"exit_code": 15}, True),
    ],
)
def test_a_process_that_was_asked_to_go_has_not_crashed(details: dict[str, object], crash: bool) -> None:  # noqa: FBT001
    """SIGTERM, SIGINT and SIGHUP, also as a shell tells of them; SIGKILL is what running out of memory looks like."""
    assert is_crash(ending("died", details)) is crash


@pytest.mark.parametrize("workers", [5, 12])
def test_what_finishes_elsewhere_is_hardly_ever_set_aside(workers: int) -> None:
    """Of ten with one killer, at most a twentieth of what the plain rule takes; for at most half a death more."""
    ours, plain = (figures(rule, workers, trials=1_000, refilled=True) for rule in (guilty, at_its_budget))

    assert ours.innocents <= plain.innocents / 20
    assert 3.0 <= ours.deaths <= plain.deaths + 0.5


def test_a_killer_that_runs_alone_stops_at_its_budget() -> None:
    """With so many workers that nothing travels with it twice."""
    assert trial(random.Random(1), guilty, workers=10**9, refilled=False) == (0, 3)
