"""Why a piece of work moved, or did not: what Postgres knows, and what only the acting service does, put together."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from liveness.assembly import Assembly
from liveness.errors import DatabaseAwayError, DatabaseRefusedError, LivenessError
from liveness.explanations import told, with_owners
from liveness.facts import Owner, Standing, WhyAnswer, WhyRequest
from liveness.lease import Lease
from liveness.store import History


class UntellableError(LivenessError):
    """The story is in Postgres, which cannot tell it just now."""


async def why(parts: Assembly, troubles: Sequence[str], request: WhyRequest) -> WhyAnswer:
    """Return the story as the acting service knows it. `troubles`: what does not work, a line each.

    Of an owner of another share only Postgres' part is told: whoever asks has to ask there, too. Raises
    UntellableError.
    """

    def seen(owner: Owner) -> Owner:
        if not parts.subjects.owns(owner.worker):
            return owner
        return msgspec.structs.replace(owner, standing=standing(parts, troubles, owner.worker))

    answer = with_owners(await past(parts.store.history, request), seen)
    if any(piece.owner is not None and _has_no_lease(piece.owner) for piece in answer.pieces):
        # Perhaps it went back, and its lease with it, since it was read.
        answer = with_owners(await past(parts.store.history, request), seen)
    return told(answer)


def _has_no_lease(owner: Owner) -> bool:
    return owner.standing is not None and owner.standing.state == "none"


async def past(history: History, request: WhyRequest) -> WhyAnswer:
    """Return what Postgres knows, not put into words yet. Raises UntellableError."""
    try:
        if request.worker is not None:
            return await history.of_worker(request.worker, request.limit)
        return await history.of_work(request.work_id or "", request.limit)
    except (DatabaseAwayError, DatabaseRefusedError) as error:
        raise UntellableError(f"what happened is written in Postgres, which cannot be read: {error}") from error


def standing(parts: Assembly, troubles: Sequence[str], worker: str) -> Standing:
    """Return what memory holds of `worker`, and what keeps the service from acting on it."""
    now = parts.hearing.now
    lease = parts.book.get(worker)
    return Standing(
        **_of_lease(parts, lease, now),
        paused=None if parts.pausing.pause is None else str(parts.pausing.pause),
        refused=parts.sweep.refused(worker) or parts.expiry.refused(worker),
        contested=parts.expiry.contested(worker),
        conflict=worker in parts.book.incarnations.conflicts,
        mode=parts.settings.mode,
        hearing=not parts.hearing.deaf(parts.clock()),
        troubles=list(troubles),
        storms=parts.storms.held(now),
        listened_for=max(parts.sweep.listened_for(), 0.0),
        heartbeat_timeout=parts.settings.heartbeat_timeout,
        workflow_stuck_timeout=parts.settings.workflow_stuck_timeout,
        postgres_back=parts.sweep.reach.back_for,
        stale_after=parts.sweep.stale_after(),
        orphaned_after=parts.sweep.orphaned_after(),
        stale_worker_check_interval=parts.settings.stale_worker_check_interval,
    )


def _of_lease(parts: Assembly, lease: Lease | None, now: float) -> dict[str, Any]:
    if lease is None:
        return {"state": "none"}
    ending = lease.ending
    known: dict[str, Any] = {
        "state": "live" if ending is None else "ending" if ending.proof else "lapsed",
        "incarnation": lease.incarnation,
        "epoch": lease.epoch,
        "ttl": lease.ttl,
        "silent_for": None if lease.last_beat is None else max(now - lease.last_beat, 0.0),
    }
    if ending is None and parts.book.lines.is_past(lease, now):
        return known | {
            "state": "lapsed", "reason": "lapsed", "overdue": now - parts.book.lines.deadline(lease),
        }  # fmt: skip
    if ending is None:
        suspect = parts.suspects.suspected.get(lease.worker)
        # A beat takes it back, whether or not anybody has looked since.
        known["suspected"] = None if suspect is None or suspect.last_beat != lease.last_beat else suspect.cause
        known["wedged"] = parts.reports.is_wedged(parts.book, lease.name)
        return known | {"remaining": max(parts.book.lines.deadline(lease) - now, 0.0)}
    known |= {"reason": ending.reason, "overdue": max(now - (ending.at if ending.proof else ending.deadline), 0.0)}
    if (hold := parts.storms.hold(lease, now)) is not None:
        line, left = hold
        known |= {"storm": line, "storm_left": left if left < math.inf else None}
    return known
