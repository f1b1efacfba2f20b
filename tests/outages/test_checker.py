"""The checker finds what is wrong with a history, and nothing in one that is right."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.outages.checker import RULES, check
from tests.outages.history import Change, History, LifeStory, Note

# The story, in seconds: `w#1` claims at 10, dies at 20, its work is back at 22; `w#2` begins at 24, claims it at 25 and
# completes it at 26; `v#1` lives all the while and holds a piece of work from 15 on.
WORK, OTHER = "work", "other"


def beats(begin: float, end: float) -> list[Note]:
    """A beat every 0.4 s."""
    return [Note(begin + 0.4 * number, "beat", {"sent": True}) for number in range(int((end - begin) / 0.4))]


def claimed(at: float, work: str, life: str) -> Change:
    """A claim of work that was PENDING."""
    return Change(at, work, "PENDING", None, None, "RUNNING", life[0], life)


def taken(at: float, work: str, life: str) -> Change:
    """A reclaim."""
    return Change(at, work, "RUNNING", life[0], life, "PENDING", None, life)


def completed(at: float, work: str, life: str) -> Change:
    """A completion by who claimed it."""
    return Change(at, work, "RUNNING", life[0], life, "COMPLETED", life[0], life)


def life(incarnation: str, began: float, ended: float | None, *notes: Note) -> LifeStory:
    """A process that beat from its beginning to its end."""
    story = [Note(began + 0.1, "connected", {}), *beats(began + 0.1, ended or 60.0), *notes]
    return LifeStory(incarnation[0], incarnation, began, ended, [], story)


def epoch(worker: str, number: int, incarnation: str, ended_at: float | None) -> dict[str, Any]:
    """A row of liveness.epoch."""
    return {"worker": worker, "epoch": number, "incarnation": incarnation, "ended_at": ended_at}


def expiration(number: int, at: float, incarnation: str) -> dict[str, Any]:
    """A row of liveness.expiration, as far as it matters."""
    said = {"reason": "lapsed", "decided_by": "host:1", "evidence": "{}", "finished_at": at}
    return {"worker": incarnation[0], "epoch": number, "incarnation": incarnation, "expired_at": at} | said


def reclaimed(at: float, work: str, worker: str, number: int, count: int = 1) -> dict[str, Any]:
    """A row of liveness.reclaim."""
    return {"id": work, "worker": worker, "epoch": number, "reclaimed_at": at, "reclaim_count": count}


def event(number: int, at: float, kind: str, **data: Any) -> dict[str, Any]:
    """An event in the stream."""
    return {"id": f"event{number}", "sequence": number, "at": at, "type": kind, "data": data}


RIGHT = History(
    at=60.0,
    ttl=2.0,
    lives={
        story.incarnation: story
        for story in (life("w#1", 5.0, 20.0), life("w#2", 24.0, None, Note(26.0, "completed", {"id": WORK})))
    }
    | {"v#1": life("v#1", 5.0, None)},
    disturbances=[],
    changes=[
        claimed(10.0, WORK, "w#1"),
        claimed(15.0, OTHER, "v#1"),
        taken(22.0, WORK, "w#1"),
        claimed(25.0, WORK, "w#2"),
        completed(26.0, WORK, "w#2"),
    ],
    running=[(OTHER, "v", "v#1")],
    epochs=[epoch("w", 1, "w#1", 22.0), epoch("w", 2, "w#2", None), epoch("v", 1, "v#1", None)],
    expirations=[expiration(1, 22.0, "w#1")],
    reclaims=[reclaimed(22.0, WORK, "w", 1)],
    outbox=0,
    events=[
        event(1, 22.0, "worker.expired", worker="w", epoch=1),
        event(2, 22.0, "workflow.reclaimed", workflow_id=WORK, former_worker="w", epoch=1),
    ],
)


def broken(history: History) -> set[str]:
    """The rules that a history breaks."""
    return {violation.rule for violation in check(history)}


def test_nothing_is_wrong() -> None:
    """A history in which everything went well breaks no rule."""
    assert check(RIGHT) == []


def with_life(incarnation: str, **fields: Any) -> History:
    """The right history with one life that is another."""
    changed = replace(RIGHT.lives[incarnation], **fields)
    return replace(RIGHT, lives=RIGHT.lives | {incarnation: changed})


def living_work_taken() -> History:
    """Somebody sets the work of a living worker back, by hand."""
    return replace(RIGHT, changes=[*RIGHT.changes, taken(30.0, OTHER, "v#1")], running=[])


def living_epoch_ended() -> History:
    """A worker that held nothing was given up while it lived."""
    return replace(RIGHT, expirations=[*RIGHT.expirations, expiration(1, 30.0, "v#1")])


def living_worker_missed_its_work() -> History:
    """A worker that lives finds its work gone, whatever the tables say."""
    notes = [*RIGHT.lives["v#1"].notes, Note(30.0, "gone", {"id": OTHER, "unsure": False})]
    return with_life("v#1", notes=notes)


def dead_work_left() -> History:
    """The dead worker's work is still RUNNING a minute later."""
    left = [change for change in RIGHT.changes if change.at < 20.0]
    return replace(RIGHT, changes=left, running=[*RIGHT.running, (WORK, "w", "w#1")])


def dead_work_late() -> History:
    """It came back, but it took 5.5 s."""
    late = [replace(change, at=change.at + 3.5) if change.at > 20.0 else change for change in RIGHT.changes]
    return replace(with_life("w#2", began=40.0), changes=late)


def epoch_without_expiration() -> History:
    """An epoch has an end and nobody says why."""
    return replace(RIGHT, epochs=[*RIGHT.epochs, epoch("v", 0, "v#0", 9.0)])


def two_open_epochs() -> History:
    """A name lives twice."""
    return replace(RIGHT, epochs=[*RIGHT.epochs, epoch("v", 2, "v#1", None)])


def reclaim_unfinished() -> History:
    """A reclaim was begun, and nobody finished it."""
    return replace(RIGHT, expirations=[RIGHT.expirations[0] | {"finished_at": None}])


def ending_told_twice() -> History:
    """Two events, with ids of their own, say that the same epoch ended."""
    return replace(RIGHT, events=[*RIGHT.events, event(3, 23.0, "worker.expired", worker="w", epoch=1)])


def ending_not_committed() -> History:
    """The stream tells of an end of which Postgres does not know."""
    return replace(RIGHT, events=[*RIGHT.events, event(3, 23.0, "worker.expired", worker="v", epoch=1)])


def event_deleted() -> History:
    """A reclaim that was never told."""
    return replace(RIGHT, events=RIGHT.events[:1])


def event_twice() -> History:
    """The same event stands in the stream twice."""
    return replace(RIGHT, events=[*RIGHT.events, RIGHT.events[0] | {"sequence": 3}])


def event_left_in_the_outbox() -> History:
    """An event was committed and not published."""
    return replace(RIGHT, outbox=1)


def reclaimed_twice() -> History:
    """Two rows tell of what happened once."""
    return replace(RIGHT, reclaims=[*RIGHT.reclaims, reclaimed(23.0, WORK, "w", 2, 2)])


def counted_wrong() -> History:
    """The first reclaim calls itself the second."""
    return replace(RIGHT, reclaims=[reclaimed(22.0, WORK, "w", 1, 2)])


def left_with_its_owner() -> History:
    """What was given back still bears its owner."""
    changes = [replace(change, to_owner="w") if change.at == 22.0 else change for change in RIGHT.changes]
    return replace(RIGHT, changes=changes)


def completed_when_it_was_pending() -> History:
    """A late write of a worker that was given up went through."""
    late = Change(23.0, WORK, "PENDING", None, "w#1", "COMPLETED", "w", "w#1")
    return replace(RIGHT, changes=[*RIGHT.changes[:3], late])


def completed_twice() -> History:
    """Work was completed, and completed again."""
    return replace(RIGHT, changes=[*RIGHT.changes, completed(27.0, WORK, "w#2")])


def two_were_told() -> History:
    """Two workers were told that they completed the same work."""
    notes = [*RIGHT.lives["v#1"].notes, Note(27.0, "completed", {"id": WORK})]
    return with_life("v#1", notes=notes)


def running_with_a_dead_owner() -> History:
    """A row says RUNNING in the end, and its process is dead."""
    return replace(RIGHT, running=[*RIGHT.running, ("third", "w", "w#1")])


@pytest.mark.parametrize(
    ("history", "rule"),
    [
        (living_work_taken, "living"),
        (living_epoch_ended, "living"),
        (living_worker_missed_its_work, "living"),
        (dead_work_left, "back"),
        (dead_work_late, "back"),
        (epoch_without_expiration, "epochs"),
        (two_open_epochs, "epochs"),
        (reclaim_unfinished, "epochs"),
        (ending_told_twice, "endings"),
        (ending_not_committed, "endings"),
        (event_deleted, "events"),
        (event_twice, "events"),
        (event_left_in_the_outbox, "events"),
        (reclaimed_twice, "trail"),
        (counted_wrong, "trail"),
        (left_with_its_owner, "trail"),
        (completed_when_it_was_pending, "finisher"),
        (completed_twice, "finisher"),
        (two_were_told, "accepted"),
        (running_with_a_dead_owner, "running"),
    ],
)
def test_what_is_wrong_is_found(history: Callable[[], History], rule: str) -> None:
    """Each way in which a history can be wrong breaks its rule."""
    assert rule in broken(history())


def test_every_rule_can_be_broken() -> None:
    """No rule is there that the tests above do not break."""
    marks = test_what_is_wrong_is_found.pytestmark  # type: ignore[attr-defined]
    assert {rule for _, rule in marks[0].args[1]} == RULES.keys()


def test_a_stall_excuses() -> None:
    """Work of a worker that did not run for more than its ttl may be taken, in the stall and not long after it."""
    stalled = with_life("v#1", silences=[(28.0, 31.0, "stopped")])
    for at, allowed in ((28.5, False), (30.2, True), (32.0, True), (40.0, False)):
        history = replace(stalled, changes=[*RIGHT.changes, taken(at, OTHER, "v#1")], running=[])
        assert ("living" not in broken(history)) == allowed, at


def test_a_short_stall_does_not_excuse() -> None:
    """A stall that leaves the worker time to beat within its ttl excuses nothing."""
    stalled = with_life("v#1", silences=[(28.0, 29.2, "stopped")])
    assert "living" in broken(replace(stalled, changes=[*RIGHT.changes, taken(29.5, OTHER, "v#1")], running=[]))


def test_an_outage_postpones() -> None:
    """Work is not late while the service could not do it, and is late a ttl and 3 s after the outage's end."""
    for at, allowed in ((35.0, True), (35.9, False)):
        changes = [replace(change, at=at) if change.at == 22.0 else change for change in RIGHT.changes[:3]]
        history = replace(with_life("w#2", began=50.0, notes=[]), changes=changes)
        outage = replace(history, disturbances=[(21.0, 30.5, "Postgres killed")])
        assert ("back" not in broken(outage)) == allowed, at
        assert "back" in broken(history)


def test_outages_without_end_postpone_for_three_ttls() -> None:
    """An outage that comes again and again lets nobody wait for ever: three ttls and 3 s of quiet in pieces will do."""
    outages = [(20.0 + 4.0 * number, 21.0 + 4.0 * number, "NATS killed") for number in range(20)]
    changes = [replace(change, at=55.0) if change.at == 22.0 else change for change in RIGHT.changes[:3]]
    history = replace(with_life("w#2", began=58.0, notes=[]), changes=changes, disturbances=outages)
    assert "back" in broken(history)


def test_what_was_claimed_within_a_second_before_the_next_process_stays_until_that_ends() -> None:
    """By its heartbeats alone it may be that one's. Not so if it said hello, or began later, and not for ever."""
    hello = Note(20.6, "hello", {"answer": "{}"})
    for claimed_at, ended, notes, allowed in (
        (19.6, None, [], True),
        (19.4, None, [], False),
        (19.6, None, [hello], False),
        (19.6, 58.0, [], True),
        (19.6, 40.0, [], False),
    ):
        lives = {"w#1": life("w#1", 5.0, 20.0), "w#2": life("w#2", 20.5, ended, *notes)}
        history = replace(
            RIGHT,
            lives=RIGHT.lives | lives,
            changes=[claimed(claimed_at, WORK, "w#1")],
            running=[*RIGHT.running, (WORK, "w", "w#1")],
        )
        assert (not broken(history) & {"back", "running"}) == allowed, (claimed_at, ended)


def test_an_epoch_that_was_opened_for_an_orphan_is_not_told() -> None:
    """Its owner was told of before, or was never known; told all the same, it would be told twice."""
    orphan = expiration(2, 23.0, "w#1") | {"reason": "orphaned", "incarnation": None}
    history = replace(
        RIGHT,
        epochs=[*RIGHT.epochs, epoch("w", 2, "w#1", 23.0)],
        expirations=[*RIGHT.expirations, orphan],
    )
    told = replace(history, events=[*RIGHT.events, event(3, 23.0, "worker.expired", worker="w", epoch=2)])

    assert "endings" not in broken(history)
    assert "endings" in broken(told)
