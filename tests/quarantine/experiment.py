"""One killer among ten pieces of work, claimed at random: the claim model, and what is set aside in it."""

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Final, NamedTuple

from liveness.budgets import Suspect, guilty

TOGETHER: Final = 10
WORKERS: Final = (2, 3, 5, 8, 12, 20)
BUDGET: Final = 3
KILLER: Final = "killer"
# Never reached: with twice its budget a killer is set aside whatever runs beside it.
DEATHS_MOST: Final = 100

Rule = Callable[[Sequence[Suspect], int], list[Suspect]]


class Figures(NamedTuple):
    """Means of many trials: innocents set aside, and workers that died until the killer was."""

    innocents: float
    deaths: float


def at_its_budget(suspects: Sequence[Suspect], budget: int) -> list[Suspect]:
    """Blame everything that has its budget behind it: the rule that ours is measured against."""
    return [suspect for suspect in suspects if suspect.crash_count >= budget]


RULES: Final[Mapping[str, Rule]] = {"at its budget": at_its_budget, "by these rules": guilty}


def figures(rule: Rule, workers: int, *, trials: int, refilled: bool) -> Figures:
    """Return the means of `trials`; always the same for the same arguments."""
    dice = random.Random(workers)
    seen = [trial(dice, rule, workers=workers, refilled=refilled) for _ in range(trials)]
    return Figures(fmean(innocents for innocents, _ in seen), fmean(deaths for _, deaths in seen))


def trial(dice: random.Random, rule: Rule, *, workers: int, refilled: bool) -> tuple[int, int]:
    """Let a killer and nine others run on one worker, and what goes back be claimed by `workers` at random.

    What is claimed with the killer dies with it again; what is claimed by another worker finishes. With `refilled`, the
    killer's worker claims new work besides, so that it always runs ten. Return how many innocents were set aside, and
    how many workers died until the killer was.
    """
    crashes = {KILLER: 0} | {f"innocent {number}": 0 for number in range(1, TOGETHER)}
    beside, innocents = set(crashes) - {KILLER}, 0
    for deaths in range(1, DEATHS_MOST):
        ran = {KILLER} | beside
        for item in ran:
            crashes[item] += 1
        aside = {suspect.id for suspect in rule(_suspects(crashes, ran), BUDGET)}
        innocents += len(aside - {KILLER})
        if KILLER in aside:
            return innocents, deaths
        beside = {item for item in sorted(beside - aside) if dice.randrange(workers) == 0}
        while refilled and len(beside) < TOGETHER - 1:
            new = f"innocent {len(crashes)}"
            crashes[new] = 0
            beside.add(new)
    raise AssertionError("the killer was never set aside")


def _suspects(crashes: Mapping[str, int], ran: set[str]) -> list[Suspect]:
    return [
        Suspect(
            id=item,
            kind=None,
            queue=None,
            worker="w",
            epoch=1,
            reclaim_count=crashes[item],
            crash_count=crashes[item],
            suspects=len(ran),
        )
        for item in ran
    ]
