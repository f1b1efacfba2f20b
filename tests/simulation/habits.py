"""What the workers and the work of some schedules do beyond the plain ones.

They are drawn, and do all that they do by chance, by a second die: without them a seed runs as it did before there were
any.
"""

from random import Random

import msgspec

# The share of schedules in which there are any at all, and of those the share of each habit.
ANY_SHARE, EACH_SHARE = 0.5, 0.5
# Of the workers of such a schedule, so many have the habit.
WORKERS_SHARE = 0.6
# Crashes, and seconds within which they count against a piece of work: in each schedule some come too late.
BUDGETS, WINDOW = (2, 2, 3), 100.0
TWINS_SHARE = 0.4
AGAIN_SHARE = 0.2


class Habits(msgspec.Struct, frozen=True):
    """Which habits there are. `budget` is the crash budget; 0: nobody counts."""

    fenced: bool = False
    supervised: bool = False
    listing: bool = False
    budget: int = 0
    # Pieces of work that kill whoever runs them, and whether two of them are always claimed together.
    poisonous: int = 0
    twins: bool = False
    # By a die of its own: those that begin again under their incarnation.
    again: bool = False


def drawn(random: Random, third: Random) -> Habits:
    """Draw the habits of a schedule."""
    again = third.random() < AGAIN_SHARE
    if random.random() >= ANY_SHARE:
        return Habits(again=again)
    fenced, supervised, listing, counts = (random.random() < EACH_SHARE for _ in range(4))
    budget, poisonous = (random.choice(BUDGETS), random.randint(0, 3)) if counts else (0, 0)
    twins = poisonous > 1 and random.random() < TWINS_SHARE
    return Habits(fenced, supervised, listing, budget, poisonous, twins, again)
