"""Who may be taken for dead, and by when what the dead held has to be back."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from liveness.beginnings import AGREED_WITHIN
from tests.outages.history import Change, History, LifeStory

# After a ttl without disturbance. What the issue promises.
GRACE_SECONDS: Final = 3.0
# A claim that was committed after its worker had died and its epoch was over is the sweep's business: untouched for
# `workflow_stuck_timeout` (3 s), one `stale_worker_check_interval` (1 s), and the reclaim itself.
ORPHAN_SECONDS: Final = 8.0
# Beats come every fifth of a ttl, so a silence that is shorter than the rest of it lets nothing lapse.
BEATS_IN_A_TTL: Final = 5
# How long after a silence a transaction that was decided in it may still be under way, the first beat too.
STILL_UNDER_WAY_SECONDS: Final = 2.0
# After a disturbance: connections are made anew.
SETTLE_SECONDS: Final = 1.5


@dataclass(frozen=True)
class Return:
    """Work that went back: of whom, how long after its death, and how long after it could have gone at the soonest."""

    incarnation: str
    id: str
    after_death: float
    after_quiet: float


def excused(history: History, life: LifeStory, moment: float) -> bool:
    """Say whether `life` was dead or had been silent for long enough at `moment` that its work could be taken."""
    if life.ended is not None and moment >= life.ended:
        return True
    interval = history.ttl / BEATS_IN_A_TTL
    return any(
        end - begin >= history.ttl - 1.5 * interval
        and begin + history.ttl - 1.5 * interval <= moment <= end + STILL_UNDER_WAY_SECONDS
        for begin, end in joined([(begin, end) for begin, end, _ in life.silences], interval)
    )


def bound(history: History, worker: str, moment: float, seconds: float = 0.0) -> tuple[float, float]:
    """Return since when nothing disturbed the return of what `worker` lost at `moment`, and when it is to be back.

    That is a ttl and three seconds (or `seconds`) of quiet at one go, or three ttls and three seconds in pieces.
    A new process of the name disturbs, too, until it is heard: from then on it is the proof that the former is over.
    """
    allowed = seconds or history.ttl + GRACE_SECONDS
    patience = max(allowed, 3 * history.ttl + GRACE_SECONDS)
    starts = [(life.began, heard_at(life)) for life in history.lives.values() if life.worker == worker]
    disturbances = joined([*((begin, end) for begin, end, _ in history.disturbances), *starts], 0.0)
    quiet_since, in_pieces = moment, 0.0
    for begin, end in disturbances:
        if end <= quiet_since:
            continue
        if begin - quiet_since >= allowed:
            break
        piece = begin - quiet_since
        if in_pieces + piece >= patience:
            return quiet_since, quiet_since + patience - in_pieces
        in_pieces += max(0.0, piece - SETTLE_SECONDS)
        quiet_since = end
    return quiet_since, quiet_since + allowed


def lost_at(history: History, life: LifeStory, claim: Change) -> float | None:
    """Return from when on what a dead process claimed has to come back; None while that is not promised.

    By heartbeats alone the beginning of the next process is known to a second. What was claimed within that before it
    may be its own, so it stays until that one ends, too.
    """
    later = [one for one in history.lives.values() if one.worker == life.worker and one.began > life.began]
    heir = min(later, key=lambda one: one.began, default=None)
    died = max(life.ended or 0.0, claim.at)
    if heir is None or heir.began - claim.at > AGREED_WITHIN or any(note.what == "hello" for note in heir.notes):
        return died
    return None if heir.ended is None else max(died, heir.ended)


def heard_at(life: LifeStory) -> float:
    """When a process could be heard for the first time."""
    return next((note.at for note in life.notes if note.what == "connected"), life.ended or life.began)


def returns(history: History) -> list[Return]:
    """Return the work of dead processes that went back, in the order of its claims."""
    found = []
    for life, claim, following in claims_of_the_dead(history):
        if following is not None and life.ended is not None and following.at >= life.ended:
            lost_at = max(life.ended, claim.at)
            ends = [end for _, end, _ in history.disturbances if lost_at < end <= following.at]
            after_quiet = following.at - max([lost_at, *ends])
            found.append(Return(life.incarnation, claim.id, following.at - lost_at, after_quiet))
    return found


def joined(stretches: Sequence[tuple[float, float]], near: float) -> list[tuple[float, float]]:
    """Return the stretches in order, those that overlap or lie within `near` seconds of each other as one."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(stretches):
        if joined and begin - joined[-1][1] <= near:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def claims_of_the_dead(history: History) -> Iterator[tuple[LifeStory, Change, Change | None]]:
    """Yield the claims that a life had not finished when it died, each with what befell the row next."""
    by_row: dict[str, list[Change]] = defaultdict(list)
    for change in history.changes:
        by_row[change.id].append(change)
    for changes in by_row.values():
        for claim, following in zip(changes, [*changes[1:], None], strict=True):
            life = history.lives.get(claim.to_life or "")
            if claim.to_status != "RUNNING" or life is None or life.ended is None:
                continue
            if following is None or following.at >= life.ended:
                yield life, claim, following
