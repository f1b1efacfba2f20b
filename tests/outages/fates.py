"""The rules about work: the living keep theirs, the dead's goes back."""

from collections.abc import Iterator
from typing import TypeAlias

from tests.outages.bounds import GRACE_SECONDS, ORPHAN_SECONDS, bound, claims_of_the_dead, excused, lost_at
from tests.outages.history import Change, History, LifeStory, clock

# When, and what.
Found: TypeAlias = Iterator[tuple[float, str]]


def is_taken(change: Change) -> bool:
    """Whether somebody other than its worker touched RUNNING work."""
    return change.from_status == "RUNNING" and change.to_status != "COMPLETED"


def circumstances(history: History, life: LifeStory, moment: float) -> str:
    """What is known of a life around a moment."""
    beats = [note.at for note in life.notes if note.what == "beat" and note.fields["sent"]]
    before = [clock(at) for at in beats if at <= moment]
    said = [
        f"it began at {clock(life.began)}",
        "has not died" if life.ended is None else f"died at {clock(life.ended)}",
        f"sent beats at {', '.join(before[-3:]) or 'no time'} and then {len(beats) - len(before)} more",
    ]
    said += [f"silent {clock(begin)} to {clock(end)} ({why})" for begin, end, why in life.silences if begin <= moment]
    said += [
        f"{what} {clock(begin)} to {clock(end)}"
        for begin, end, what in history.disturbances
        if begin - 1 <= moment <= end + history.ttl + GRACE_SECONDS
    ]
    return "; ".join(said)


def decision(history: History, worker: str, epoch: int) -> str:
    """Why an epoch ended, by the service's own account."""
    row = next((row for row in history.expirations if (row["worker"], row["epoch"]) == (worker, epoch)), None)
    if row is None:
        return "no expiration tells why"
    return (
        f"epoch {epoch} of {worker} ({row['incarnation']}) ended at {clock(row['expired_at'])} by {row['decided_by']}, "
        f"reason {row['reason']}, evidence {row['evidence']}"
    )


def living(history: History) -> Found:
    """Nothing is taken from a process that lives and beats, and no epoch of one ends."""
    epochs = {(row["id"], row["worker"]): row["epoch"] for row in history.reclaims}
    for change in filter(is_taken, history.changes):
        taken = f"{change.id} was taken at {clock(change.at)} from {change.from_life}"
        life = history.lives.get(change.from_life or "")
        if life is None:
            yield change.at, f"{taken}, whom nobody started"
        elif not excused(history, life, change.at):
            why = decision(history, life.worker, epochs.get((change.id, life.worker), 0))
            yield change.at, f"{taken}, which lived: {circumstances(history, life, change.at)}; {why}"
    for row in history.expirations:
        at = row["expired_at"]
        life = history.lives.get(row["incarnation"] or "")
        if life is not None and not excused(history, life, at):
            why = decision(history, row["worker"], row["epoch"])
            yield at, f"{life.incarnation} lived, and {why}; {circumstances(history, life, at)}"
    for life in history.lives.values():
        for note in life.notes:
            if note.what == "gone" and not note.fields.get("unsure") and not _was_excused_by(history, life, note.at):
                lost = f"{note.fields['id']} was not its own any more"
                yield note.at, f"{life.incarnation} lived and found at {clock(note.at)} that {lost}"


def _was_excused_by(history: History, life: LifeStory, moment: float) -> bool:
    """Whether `life` had a silence in which its work could be taken, any time before `moment`."""
    return any(begin <= moment and excused(history, life, end) for begin, end, _ in life.silences)


def back(history: History) -> Found:
    """The work of a process that died is back in time."""
    for life, claim, following in claims_of_the_dead(history):
        died = life.ended or 0.0
        # A claim that was committed after the death of its worker is the sweep's business.
        seconds = ORPHAN_SECONDS if claim.at > died else 0.0
        lost = lost_at(history, life, claim)
        if lost is None:
            continue
        since, latest = bound(history, life.worker, lost, seconds)
        claimed = f"{claim.id}, claimed by {life.incarnation} at {clock(claim.at)}"
        allowed = f"all was quiet from {clock(since)}, {clock(latest)} was the latest"
        if following is not None and following.at > latest:
            known = circumstances(history, life, following.at)
            yield following.at, f"{claimed}, came back at {clock(following.at)}; {allowed}: {known}"
        elif following is None and history.at > latest:
            known = circumstances(history, life, history.at)
            yield latest, f"{claimed}, is still RUNNING at {clock(history.at)}; {allowed}: {known}"


def running(history: History) -> Found:
    """In the end nothing is RUNNING whose process is dead."""
    lost = {claim.id: lost_at(history, life, claim) for life, claim, _ in claims_of_the_dead(history)}
    for work, owner, incarnation in history.running:
        life = history.lives.get(incarnation or "")
        if life is None or life.worker != owner:
            yield history.at, f"{work} is RUNNING, owned by {owner}, claimed by {incarnation}"
            continue
        since = lost.get(work, life.ended)
        if (
            life.ended is not None
            and since is not None
            and history.at > bound(history, owner, since, ORPHAN_SECONDS)[1]
        ):
            died = f"its worker {incarnation} died at {clock(life.ended)}"
            yield life.ended, f"{work} is RUNNING at {clock(history.at)} and {died}"
