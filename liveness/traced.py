"""What the spans of reclaims say. Pure.

Names of OpenTelemetry's conventions for databases where they have one, else `liveness.*`.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from liveness.spans import Span, Value, carried, span
from liveness.verdicts import Case, Outcome, Verdict

# Lives of one reclaim that are named: fewer than the 128 of anything that OpenTelemetry keeps of a span.
LIVES_TOLD = 100


@contextlib.contextmanager
def reclaim_span(lives: Iterable[tuple[str, str]], *, mode: str) -> Iterator[Span]:
    """Enter the span of a reclaim; `lives` are those that it offers, each by its worker's name and the reason."""
    with span("reclaim", {"db.system.name": "postgresql", "liveness.mode": mode}, kind="client") as told:
        if told.collected:
            offered = list(lives)
            told.note(
                {
                    "liveness.lives": len(offered),
                    "liveness.retries": 0,
                    "liveness.workers": [worker for worker, _ in offered[:LIVES_TOLD]],
                    **{f"liveness.reasons.{why}": many for why, many in Counter(why for _, why in offered).items()},
                }
            )
        yield told


def note_verdicts(told: Span, cases: Sequence[Case], verdicts: list[Verdict]) -> list[Verdict]:
    """Say in `told` what became of the lives that were offered, and of each unless they are too many.

    Return the verdicts, which bear its context from here on.
    """
    if not told.collected:
        return verdicts
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    told.note({f"liveness.lives.{outcome.value}": outcomes[outcome] for outcome in Outcome})
    items: Counter[str] = Counter()
    for verdict in verdicts:
        items.update(verdict.items)
    note_items(told, items)
    for case, verdict in zip(cases[:LIVES_TOLD], verdicts[:LIVES_TOLD], strict=True):
        told.tell("life", _life(case, verdict))
    context = carried.get()
    return [msgspec.structs.replace(verdict, traceparent=context) for verdict in verdicts]


def note_items(told: Span, items: Mapping[str, int]) -> None:
    """Say in `told` how much went back, by kind of work."""
    told.note(
        {"liveness.items": sum(items.values()), **{f"liveness.items.{work}": many for work, many in items.items()}}
    )


def _life(case: Case, verdict: Verdict) -> Mapping[str, Value]:
    return {
        "liveness.worker": case.worker,
        "liveness.reason": case.reason,
        "liveness.outcome": verdict.outcome.value,
        "liveness.items": sum(verdict.items.values()),
        **({} if verdict.epoch is None else {"liveness.epoch": verdict.epoch}),
        **({} if case.incarnation is None else {"liveness.incarnation": case.incarnation}),
    }
