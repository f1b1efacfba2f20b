"""How it is known that the simulation finds anything: deliberately wrong versions of the real code, each by name.

Each replaces one method, constant or function, and comes with the rule of the checker that it breaks and the first seed
that shows it. When the schedules have changed, `python -m tests.simulation --mutants` looks for those seeds anew.
"""

from tests.simulation import belief_mutants, duty_mutants, habit_mutants
from tests.simulation.mutant import Mutant

__all__ = ["MUTANTS", "Mutant"]

MUTANTS: dict[str, Mutant] = belief_mutants.MUTANTS | duty_mutants.MUTANTS | habit_mutants.MUTANTS
