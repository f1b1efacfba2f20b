"""What is offered to Postgres when an epoch should end, and what Postgres says to it. Pure."""

import enum
from collections.abc import Mapping
from typing import Any

import msgspec


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One life that should end, with everything that the record of it needs. All durations are seconds.

    `epoch` is None for a name that we never heard: the transaction issues one, to have a lock and a number.
    """

    worker: str
    epoch: int | None
    incarnation: str | None
    # lapsed, released, died, restarted, stale, orphaned, operator; open, so that later reasons need no change here.
    reason: str
    ttl: float
    # Since the last beat that we heard; None if there was none.
    silent_for: float | None = None
    # Since the deadline; None when the life ended otherwise.
    overdue: float | None = None
    # A beat that somebody else recorded within this time spares the life; None: nothing does.
    spare_within: float | None = None
    # Only rows untouched for so long are this life's; None: every RUNNING row of the name.
    untouched_for: float | None = None
    # That is since somebody said that the process has ended, and nobody who may hold work is known to have come after.
    told: bool = False
    # For a name that we never heard: what the registry must still say of it. None: anything.
    must_be_up: bool | None = None
    # Loop time at which `silent_for`, `overdue` and `untouched_for` were measured: what passes until the transaction
    # begins is added to them there. None: they are taken as they are.
    measured_at: float | None = None
    # Whether what it was working on may have been the cause: the death counts against that work's crash budget.
    crash: bool = False
    evidence: Mapping[str, Any]


class Outcome(enum.Enum):
    """What became of a case."""

    # The epoch is over; its work is back, or will be before the name's next life can begin to hold any.
    ENDED = "ended"
    # Somebody else recorded a beat.
    SPARED = "spared"
    # Somebody else has the epoch's row locked; nothing was decided.
    HELD = "held"
    # The epoch was over already, or what the sweep believed no longer held.
    OVER = "over"


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Postgres' word on a case. `items` counts what went back at once, by kind of work.

    `traceparent` names the span of the reclaim in which it was given, if anybody collects it (W3C).
    """

    worker: str
    epoch: int | None
    outcome: Outcome
    heard_ago: float | None = None
    items: Mapping[str, int] = {}
    traceparent: str | None = None


class Recovery(msgspec.Struct, frozen=True):
    """A name that was heard again under `new_epoch` after `epoch` had ended for `reason`."""

    worker: str
    epoch: int
    incarnation: str | None
    reason: str
    new_epoch: int
    # The epoch ended in mode observe: nothing was taken.
    observed: bool
