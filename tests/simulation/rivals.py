"""Whose work may be another's: what is not known of a process that is heard beside one that has said hello."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tests.simulation.replica import SETTINGS
from tests.simulation.workers import Worker

# So many times in a row may what is under way go through a gap: see hearing.py, and the gap is not noticed yet.
IN_A_ROW = 3


def may_be_anothers(
    touched: float,
    worker: Worker,
    processes: Iterable[Worker],
    replica: Any,
    standstills: Iterable[tuple[float, float]],
) -> bool:
    """Say whether what was touched then may be work of a process that `replica` heard behind the hello of `worker`.

    Those two are in conflict. What was touched before the other one can have begun, as far as it can be known, is a
    former process's.
    """
    ear = id(replica.ear)
    greeted_at = worker.first_heard.get(ear, math.inf)
    gaps = sorted({*standstills, (replica.link_down_at, replica.link_up_at - replica.link_down_at)})
    return any(
        one.style in {"uptime", "hello"}
        and one.first_heard.get(ear, -math.inf) >= greeted_at
        and touched >= one.born_at - unread(one.born_at, replica.clock(), gaps)
        for one in processes
        if one is not worker
    )


def unread(since: float, until: float, gaps: Sequence[tuple[float, float]]) -> float:
    """Return for how long something said between may have waited at most: from the echo before the gap it came in."""
    most = 0.0
    for number, (began, lasted) in enumerate(gaps):
        if began >= until or began + lasted <= since:
            continue
        first = began
        for former, long in reversed(gaps[max(number + 1 - IN_A_ROW, 0) : number]):
            if former + long + SETTINGS.gap_grace + SETTINGS.echo_interval > first:
                first = min(first, former)
        most = max(most, min(began + lasted, until) - first)
    return most + SETTINGS.echo_interval
