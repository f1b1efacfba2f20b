"""What commands ask the acting replica on `<prefix>.api.<verb>`, and what it answers. Pure.

Every answer is a JSON object; one with `error` says in a line why nothing was done.
"""

from collections.abc import Mapping

import msgspec

# Workers in one answer: far below what makes an answer too large for a NATS message of 1 MiB.
PAGE = 500


class StatusRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: which page of the workers, in the order of their remaining time."""

    offset: int = 0
    limit: int = PAGE


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as the book sees it. Durations in seconds."""

    worker: str
    # live, lapsed (waiting for the verdict), or ending (proof was given).
    state: str
    incarnation: str | None
    epoch: int | None
    ttl: float
    remaining: float
    # Since its last heartbeat; None if this service has heard none.
    silent_for: float | None
    # Pieces of work it holds in the database.
    running: int


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The service as it sees itself."""

    version: str
    mode: str
    # Empty when everything works; else what does not, a line each.
    troubles: list[str]
    hearing: bool
    uptime: float
    leases: int
    wanting: int
    ending: int
    outbox: int | None
    outbox_oldest: float | None
    counts: Mapping[str, int]
    workers: list[WorkerStatus]


class SweepRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`sweep`: look through the database now."""

    dry_run: bool = False


class ReclaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`reclaim`: give the work of one worker back, on the operator's word."""

    worker: str
    dry_run: bool = False
    # Even if the worker holds a lease that has not lapsed.
    force: bool = False


class ReclaimAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `reclaim` did: `heard` is what is known of the worker, in a line."""

    worker: str
    heard: str
    dry_run: bool
    # Pieces of work the worker held, and of those the ones put back.
    held: int
    reclaimed: int
    epoch: int | None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing was done."""

    error: str
