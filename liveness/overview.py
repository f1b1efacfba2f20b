"""What a status says, in words: the same on the page, in the terminal, and while one watches. Pure."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from liveness.answers import Expired, Moved, StatusAnswer, WorkerStatus
from liveness.figures import counted, past, seconds
from liveness.shown import printable

# Names in a line about some workers; the rest is in --json.
NAMES_SHOWN = 10
# An event that has waited for longer in the outbox is late (seconds).
OLD_SECONDS = 10.0


class Mark(NamedTuple):
    """One thing that an operator looks for first: what, how it is, and whether that is as it should be."""

    what: str
    says: str
    well: bool


def marks(answer: StatusAnswer) -> list[Mark]:
    """Return how the service is, in the order in which one asks."""
    term = "" if answer.term is None else f" in term {answer.term}"
    waits = answer.outbox_oldest or 0.0
    outbox = "not known" if answer.outbox is None else counted(answer.outbox, "event")
    if answer.outbox and waits >= OLD_SECONDS:
        outbox += f", the oldest for {seconds(waits)}"
    return [
        Mark("role", f"leads{term}" if answer.leads else "follows", well=True),
        Mark("mode", "paused" if answer.paused is not None else answer.mode, well=answer.paused is None),
        Mark("hearing", "hears" if answer.hearing else "deaf", answer.hearing),
        Mark("storm", f"{len(answer.storms)} held" if answer.storms else "none", not answer.storms),
        Mark("outbox", outbox, answer.outbox is not None and waits < OLD_SECONDS),
        Mark("Postgres", "answers" if answer.postgres else "away", answer.postgres),
        Mark("NATS", "connected" if answer.nats else "away", answer.nats),
    ]


def lines(answer: StatusAnswer) -> list[str]:
    """Return the state, the marks, the counts, and a line for whatever is out of the ordinary."""
    acting = "" if answer.term is None else f", term {answer.term}"
    outbox = "? events" if answer.outbox is None else counted(answer.outbox, "event")
    counts = (
        f"{counted(answer.leases, 'lease')}, {answer.wanting} waiting for an epoch, {answer.ending} for a verdict, "
        f"{outbox} in the outbox"
    )
    head = f"liveness {answer.version}, mode {answer.mode}{acting}, up {answer.uptime:.0f} s: {state(answer)}"
    paused = [f"{answer.paused}; {answer.ending} wait for that"] if answer.paused is not None else []
    first = ", ".join(f"{mark.what}: {mark.says}" for mark in marks(answer))
    return [printable(line) for line in (head, first, *paused, counts, *notices(answer))]


def state(answer: StatusAnswer) -> str:
    """Return in a word or a line whether all is well."""
    # A storm is a trouble, too, and has a line of its own.
    troubles = "; ".join(trouble for trouble in answer.troubles if trouble not in answer.storms)
    return printable(troubles or ("storm" if answer.storms else "ready"))


def notices(answer: StatusAnswer) -> list[str]:
    """Return a line for whatever is out of the ordinary, but for a pause and the troubles."""
    said = list(answer.storms)
    if answer.conflicts:
        said.append(
            f"conflict: two processes beat under one name, so nothing is taken from either: {_some(answer.conflicts)}"
        )
    if answer.suspects:
        said.append(f"suspect: may be dead, and loses nothing before its ttl: {_some(answer.suspects)}")
    if answer.wedged:
        said.append(f"wedged: beats, runs something and gets nothing done: {_some(answer.wedged)}")
    if answer.refused:
        said.append(
            f"refused: {counted(answer.refused, 'row')}, which their tables do not take back: see `liveness check`"
        )
    said += [f"bound hit: {line}" for line in answer.bounds]
    if not answer.hearing:
        said.append("deaf: nothing can be heard now, so no lease lapses")
    # The first gap is the start.
    if answer.gaps > 1:
        said.append(
            f"not heard: {answer.not_heard:.1f} s since the start, in {answer.gaps} gaps; they count against nobody"
        )
    return [printable(line) for line in said]


def beaten(worker: WorkerStatus) -> str:
    """Return when a worker was heard last."""
    return "not yet" if worker.silent_for is None else f"{worker.silent_for:.1f} s ago"


def expired(end: Expired) -> str:
    """Return what became of a life that ended, besides that; nothing if there is no more to say."""
    said = (
        "" if end.finished else "not all is back yet",
        "only observed" if end.observed else "",
        "heard again" if end.recovered else "",
    )
    return ", ".join(words for words in said if words)


def moved(move: Moved) -> str:
    """Return what became of a piece of work that was taken back."""
    return "only observed" if move.observed else move.outcome or "back in the queue"


def recent(answer: StatusAnswer, most: int) -> Iterator[str]:
    """Go through the last ends, and the last pieces of work that were taken back, a line each."""
    for end in islice(answer.ends, most):
        rest = f" ({words})" if (words := expired(end)) else ""
        yield printable(f"{end.at[:19]}Z ({past(end.ago)}) {end.worker}, epoch {end.epoch}: {end.because}{rest}")
    for move in islice(answer.moves, most):
        reason = move.reason or "its reason is not kept"
        yield printable(
            f"{move.at[:19]}Z ({past(move.ago)}) {move.work} {move.id}, of {move.worker}: {reason}, {moved(move)}"
        )


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
