"""The rules that every history has to keep, whatever went wrong meanwhile. A violation is a sentence with its evidence.

living     nothing was taken from a process that lived and beat, and no epoch of one was ended
back       the work of a process that died is back, within the bound
epochs     an epoch ends once and says why; a name has one open epoch at most
endings    the stream says so of each epoch that ended, once; of an orphan's, not again
events     what was committed was published and what was published was committed, each event once
trail      the service's own account of what it took is the same as the host's
finisher   a piece of work is completed once, out of the hands of who claimed it
accepted   one worker at most was told that it completed a piece of work, and it is the one that did
running    nothing is RUNNING in the end whose process is dead
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.outages import accounts, fates
from tests.outages.fates import Found
from tests.outages.history import History


@dataclass(frozen=True)
class Violation:
    """A rule that was broken, and how."""

    rule: str
    at: float
    sentence: str

    def __str__(self) -> str:
        return f"[{self.rule}] {self.sentence}"


RULES: Final[dict[str, Callable[[History], Found]]] = {
    "living": fates.living,
    "back": fates.back,
    "epochs": accounts.epochs,
    "endings": accounts.endings,
    "events": accounts.events,
    "trail": accounts.trail,
    "finisher": accounts.finisher,
    "accepted": accounts.accepted,
    "running": fates.running,
}


def check(history: History, since: float = 0.0) -> list[Violation]:
    """Return every violation that happened after `since`, in the order of the rules."""
    found: list[Violation] = []
    for rule, violations in RULES.items():
        found += [Violation(rule, at, sentence) for at, sentence in violations(history) if at >= since]
    return found
