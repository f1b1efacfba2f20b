"""What a benchmark measures, and what is promised of it. Pure."""

import statistics
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import msgspec


class Measured(msgspec.Struct, frozen=True):
    """One figure, measured some times, or a distribution's figure of each run."""

    samples: Sequence[float]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.samples)

    @property
    def spread(self) -> float:
        """How far apart the least and the greatest are, as a share of the median; 0 for a single one."""
        return (max(self.samples) - min(self.samples)) / self.median if self.median else 0.0


class Reach(msgspec.Struct, frozen=True):
    """What is promised: at most, or at least, `limit`; of our figure over the baseline's, or `alone` of our figure."""

    limit: float
    at_least: bool = False
    alone: bool = False

    def holds(self, value: float) -> bool:
        """Say whether `value` keeps it."""
        return value >= self.limit if self.at_least else value <= self.limit


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the table: our figure beside one baseline's.

    `theirs` is None where the baseline could not be measured; `note` then says why. Without a `reach` nothing is
    promised, and the line is there to be read.
    """

    number: int
    what: str
    ours: Measured
    unit: str
    baseline: str = ""
    theirs: Measured | None = None
    reach: Reach | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Our figure over the baseline's: the median of the pairs where both were measured as often, by turns."""
        if self.theirs is None:
            return None
        if len(self.ours.samples) == len(self.theirs.samples):
            pairs = zip(self.ours.samples, self.theirs.samples, strict=True)
            return statistics.median(one / other for one, other in pairs if other) if any(self.theirs.samples) else None
        return self.ours.median / self.theirs.median if self.theirs.median else None

    @property
    def reached(self) -> bool | None:
        """Whether what is promised holds; None where nothing is, or the baseline is missing."""
        value = self.ours.median if self.reach is not None and self.reach.alone else self.ratio
        return None if self.reach is None or value is None else self.reach.holds(value)


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is better drawn: lines by name, each a list of points (x, y)."""

    name: str
    title: str
    x: str
    y: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    log_x: bool = False
    log_y: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What one benchmark has to say."""

    rows: Sequence[Row]
    curves: Sequence[Curve] = ()


class Plan(msgspec.Struct, frozen=True):
    """How much is done. `quick` shows that all of it works, and figures that are rougher; `say` shows progress."""

    quick: bool
    say: Callable[[str], None]

    def pick(self, full: int, quick: int) -> int:
        """Return how much of something to do."""
        return quick if self.quick else full


class Benchmark(Protocol):
    """A module that measures; its docstring's first line is the question."""

    __doc__: str | None
    NUMBER: int

    async def measure(self, plan: Plan) -> Outcome:
        """Measure. Starts the servers that it needs, and stops them."""


async def by_turns(times: int, *sides: Callable[[], Awaitable[float]]) -> list[Measured]:
    """Measure every side `times` times, one after the other in each round, so that all see the same machine."""
    samples: list[list[float]] = [[] for _ in sides]
    for _ in range(times):
        for side, found in zip(sides, samples, strict=True):
            found.append(await side())
    return [Measured(found) for found in samples]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of `values` lie: the nearest one that was measured."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]
