"""What the chaos run finds when two tell of the same thing differently; the servers are those of the run itself."""

from dataclasses import replace
from typing import Any, Final

import pytest

from tests.chaos.agreement import Account, Facts, Readings, counted, disagreements, not_silenced, sample
from tests.outages.history import History, LifeStory

METRICS: Final = """\
# TYPE liveness_leases gauge
liveness_leases{state="live"} 1.0
liveness_leases{state="suspect"} 1.0
# TYPE liveness_leading gauge
liveness_leading 1.0
# TYPE liveness_ready gauge
liveness_ready 1.0
# TYPE liveness_leader_term gauge
liveness_leader_term 3.0
# TYPE liveness_outbox_events gauge
liveness_outbox_events 0.0
# TYPE liveness_lives_ended counter
liveness_lives_ended_total{reason="lapsed",mode="act"} 2.0
liveness_lives_ended_total{reason="died",mode="act"} 0.0
"""
ACCOUNT: Final = Account("replica0", sample(METRICS), {"a": "7", "b": "8"}, "leads in term 3 act hears none 0 events")
FACTS: Final = Facts({"a": 7, "b": 8}, term=3, outbox=0)
STATUS: Final[dict[str, Any]] = {
    "leases": 2, "hearing": True, "troubles": [], "storms": [], "term": 3, "outbox": 0,
    "workers": [{"worker": "b", "epoch": 8}, {"worker": "a", "epoch": 7}],
}  # fmt: skip


def told(**differently: str) -> Account:
    """Return the account with some metrics told differently."""
    text = METRICS
    for name, value in differently.items():
        line = next(line for line in METRICS.splitlines() if line.startswith(f"liveness_{name}"))
        text = text.replace(line, f"{line.rpartition(' ')[0]} {value}")
    return replace(ACCOUNT, metrics=sample(text))


def test_who_tells_the_same_agrees() -> None:
    """Nothing is said where all tell the same."""
    assert disagreements([ACCOUNT], STATUS, FACTS) == []


@pytest.mark.parametrize(
    ("account", "status", "facts", "what"),
    [
        (told(leases="2.0"), STATUS, FACTS, "leases"),
        (told(leading="0.0"), STATUS, FACTS, "replicas that lead"),
        (told(ready="0.0"), STATUS, FACTS, "ready"),
        (told(leader_term="4.0"), STATUS, FACTS, "term"),
        (told(outbox_events="1.0"), STATUS, FACTS, "outbox"),
        (replace(ACCOUNT, page={"a": "7"}), STATUS, FACTS, "leases"),
        (replace(ACCOUNT, page={"a": "7", "b": "6"}), STATUS, FACTS, "epochs"),
        (replace(ACCOUNT, marks="follows 0 events"), STATUS, FACTS, "term on the page"),
        (ACCOUNT, STATUS | {"leases": 3}, FACTS, "leases"),
        (ACCOUNT, STATUS | {"workers": STATUS["workers"][:1]}, FACTS, "epochs"),
        (ACCOUNT, STATUS | {"troubles": ["deaf"]}, FACTS, "ready"),
        (ACCOUNT, STATUS, replace(FACTS, open_epochs={"a": 7, "b": 9}), "epochs"),
        (ACCOUNT, STATUS, replace(FACTS, outbox=2), "outbox"),
        (ACCOUNT, STATUS, replace(FACTS, term=4), "term"),
    ],
)
def test_who_tells_it_differently_is_found(account: Account, status: dict[str, Any], facts: Facts, what: str) -> None:
    """Whatever one tells differently is named."""
    assert what in {said.partition(":")[0] for said in disagreements([account], status, facts)}


def test_counts_are_those_of_all_replicas() -> None:
    """What the metrics count is added over the replicas, and compared with what they counted before."""
    counts = counted([ACCOUNT, ACCOUNT])
    assert counts.ended == {"lapsed": 4}
    assert counts.since(counted([ACCOUNT])).ended == {"lapsed": 2}


def test_a_counter_that_falls_is_found() -> None:
    """No counter of a process may fall; those of the next process begin anew."""
    readings = Readings(stage=None)  # type: ignore[arg-type]
    readings.note("replica0", 1, ACCOUNT.metrics)
    readings.note("replica0", 2, told(lives_ended_total="0.0").metrics)
    assert not readings.falls
    readings.note("replica0", 1, told(lives_ended_total="1.0", leases="0.0").metrics)
    assert readings.falls == ["liveness_lives_ended_total of replica0 (pid 1) fell from 2 to 1"]


@pytest.mark.parametrize(("silence", "wrong"), [((10.0, 13.0, "stopped"), 0), ((12.5, 13.0, "stopped"), 1)])
def test_who_recovers_and_was_not_silent_is_found(silence: tuple[float, float, str], wrong: int) -> None:
    """A process that recovers from a lapse has been silent for as long as its ttl."""
    life = LifeStory("w", "w-1", began=1.0, ended=None, silences=[silence], notes=[])
    event = {
        "type": "worker.recovered", "at": 13.5,
        "data": {
            "worker": "w", "incarnation": "w-1", "former_incarnation": "w-1", "former_epoch": 7,
            "former_reason": "lapsed",
        },
    }  # fmt: skip
    history = History(
        at=20.0, ttl=2.0, lives={"w-1": life}, disturbances=[], changes=[], running=[], epochs=[],
        expirations=[{"worker": "w", "epoch": 7, "expired_at": 12.6}], reclaims=[], outbox=0, events=[event],
    )  # fmt: skip
    assert len(not_silenced(history)) == wrong
