"""What a check has to say: a finding. Pure.

A check looks at one thing that liveness needs of its surroundings and returns its findings; none means that nothing is
wrong. What is to be done is words for a person, what is to be carried out is a statement that can be pasted.
"""

from collections.abc import Iterable
from enum import Enum
from typing import Annotated

import msgspec
from msgspec import Meta

Seconds = Annotated[float, Meta(ge=0)]

# What may be lost to each use before it is bad: a reclaim is to take little longer than its commit.
BEARABLE_SECONDS = 0.01


class Weight(Enum):
    """How much a finding matters: the service cannot do its duty, does it badly, or could do it better."""

    BROKEN = "broken"
    BAD = "bad"
    BETTER = "better"


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """What one use takes now, and what it would take: measured, or left open and said why."""

    use: Annotated[str, Meta(description="What is done, and when.")]
    now: Annotated[Seconds, Meta(description="Seconds that it takes as things are.")]
    at_least: Annotated[bool, Meta(description="Whether it was broken off then: it takes longer.")] = False
    then: Annotated[Seconds | None, Meta(description="Seconds that it would take; None: not measured.")] = None


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it should be."""

    check: Annotated[str, Meta(description="Which check found it.")]
    weight: Weight
    about: Annotated[str, Meta(description="What it concerns: a table, a server.")]
    says: Annotated[str, Meta(description="What is wrong.")]
    why: Annotated[str, Meta(description="What it does to us.")] = ""
    fix: Annotated[str, Meta(description="What would mend it, in words.")] = ""
    statements: Annotated[tuple[str, ...], Meta(description="What would mend it. Never carried out unasked.")] = ()
    gains: tuple[Gain, ...] = ()
    measured: Annotated[str, Meta(description="How the gains were measured, or why they were not.")] = ""


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """Return the heaviest first; of equal weight, in the order of the checks that found them; then what gains most."""
    found, weights = list(findings), list(Weight)
    checks = list(dict.fromkeys(finding.check for finding in found))
    return sorted(
        found,
        key=lambda finding: (
            weights.index(finding.weight),
            checks.index(finding.check),
            -sum(_gained(gain) for gain in finding.gains),
        ),
    )


def matters(findings: Iterable[Finding], least: Weight) -> bool:
    """Say whether one of them matters so much at least."""
    weights = list(Weight)
    return any(weights.index(finding.weight) <= weights.index(least) for finding in findings)


def weighed(gains: Iterable[Gain]) -> Weight:
    """Return what it is to miss these gains: bad, or as yet bearable. What was not measured may be anything."""
    bearable = all(gain.then is not None and gain.now - gain.then < BEARABLE_SECONDS for gain in gains)
    return Weight.BETTER if bearable else Weight.BAD


def _gained(gain: Gain) -> float:
    return gain.now - (gain.then or 0.0)
