"""Whose work may be another's: what is not known of processes that live beside each other under one name."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tests.simulation.nats import Ear
from tests.simulation.replica import SETTINGS, TTL
from tests.simulation.workers import NEVER, Worker

# So many times in a row may what is under way go through a gap: see hearing.py, and the gap is not noticed yet.
IN_A_ROW = 3
# Seconds by which a replica may hear late at worst.
LATE = 6.0


def is_replaced(process: Worker, same_name: Sequence[Worker], ear: Ear) -> bool:
    """Say whether the beats of `process` may be stale to who hears by `ear`, and its work go with another one's."""
    # One that waits for its hello is the newer one when it is heard at last.
    newer = same_name[-1] is not process or any(one.style == "hello" and one is not process for one in same_name)
    # So is one that is heard later than this one, or while this one is not heard for a ttl.
    _, _, again = process.heard_by.get(id(ear), NEVER)
    first = process.first_heard.get(id(ear), math.inf)
    for one in same_name:
        other = one.first_heard.get(id(ear), math.inf)
        if one is process or other == math.inf:
            continue
        alone = max(first, other) < again and (one.died_at is None or one.died_at > again - TTL)
        newer = newer or first < other or alone
    return process.beside and newer


def has_replaced(other: Worker, process: Worker, known_to: float = 0.0) -> bool:
    """Say whether the hello of `other` has said that `process` is over.

    Of two that begin within a ttl, the one whose hello is heard behind the other's beats is the newer to all who hear;
    and to who cannot tell the beginning of `process` better than to `known_to` seconds, when they lie that much apart.
    """
    if other.style != "hello" or not other.first_heard or other is process:
        return False
    first_heard = process.first_heard
    # Who begins again says another hello.
    hellos = [*other.first_heard.items(), *(() if other.again is None else other.again.greeted.items())]
    behind = any(at >= first_heard.get(ear, math.inf) for ear, at in hellos)
    return other.number > process.number or (behind and process.born_at - other.born_at < TTL + known_to)


def speaks_for_itself(process: Worker, ear: Ear) -> bool:
    """Say whether a replica can tell that what another one of its name lists is not said of the work of `process`.

    It cannot while it does not hear this one, nor when this one has just come back.
    """
    if not process.beside:
        return True
    _, last, again = process.heard_by.get(id(ear), NEVER)
    now = process.world.now
    return now - last < TTL and now - again >= LATE


def is_over_by_hello(
    process: Worker, same_name: Iterable[Worker], replica: Any, standstills: Iterable[tuple[float, float]], now: float
) -> bool:
    """Say whether another one's hello may have said to `replica` that `process` is over."""
    known_to = unread(process.born_at, now, gaps_of(replica, standstills))
    return any(has_replaced(one, process, known_to) for one in same_name)


def said_hello_lately(process: Worker, same_name: Sequence[Worker]) -> bool:
    """Say whether the hello of another may have been under way still when `process` began."""
    return any(
        one.style == "hello" and (one.died_at is None or one.died_at > process.born_at - LATE)
        for one in same_name
        if one is not process
    )


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
    gaps = gaps_of(replica, standstills)
    return any(
        one.style in {"uptime", "hello"}
        and one.first_heard.get(ear, -math.inf) >= greeted_at
        and touched >= one.born_at - unread(one.born_at, replica.clock(), gaps)
        for one in processes
        if one is not worker
    )


def gaps_of(replica: Any, standstills: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return since when and for how long what is said to `replica` may have waited."""
    return _merged({*standstills, *replica.link_losses()})


def _merged(gaps: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the gaps in their order; what stands still while the link is down is none of its own."""
    merged: list[tuple[float, float]] = []
    for began, lasted in sorted(gaps):
        first, long = merged[-1] if merged else (math.inf, 0.0)
        if first <= began <= first + long:
            merged[-1] = first, max(long, began + lasted - first)
        else:
            merged.append((began, lasted))
    return merged


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
