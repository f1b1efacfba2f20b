"""What `why` is asked, and what is known of one piece of work or of one worker: facts as data. Pure.

The words for them are made by `explanations`. Postgres' part comes from `store.history`, the part that only the acting
service knows is a `Standing`.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from liveness.messages import Seconds

# Moves, or lives, that one answer tells unless asked for more, and at most. With the longest names and all its steps in
# words one takes 6 KB, and several tables may share an id: a NATS message carries 1 MB.
TOLD, TOLD_MOST = 20, 50
# Characters of an id. A host's ids are far shorter, and the answer repeats them.
ID_LENGTH = 1_024


class WhyRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`why`: the story of one piece of work, or of one worker. Exactly one of the two is named."""

    work_id: Annotated[str, Meta(min_length=1, max_length=ID_LENGTH)] | None = None
    worker: Annotated[str, Meta(min_length=1, max_length=ID_LENGTH)] | None = None
    limit: Annotated[int, Meta(ge=0, le=TOLD_MOST, description="So many moves, or lives, at most; the last ones.")] = (
        TOLD
    )

    def __post_init__(self) -> None:
        """Refuse a request for both, or for nothing."""
        if (self.work_id is None) == (self.worker is None):
            raise ValueError("name a work_id or a worker, and not both")

    @property
    def about(self) -> str:
        """What is asked for, by which it is decided which of several shards answers."""
        return self.worker or self.work_id or ""


class Instant(msgspec.Struct, frozen=True):
    """A moment of the database's clock."""

    at: Annotated[str, Meta(description="RFC 3339, UTC.")]
    ago: Annotated[float, Meta(description="Seconds, when Postgres was asked; negative: in the future.")]


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Why and how a life ended: the expiration as it was written in the transaction that ended it."""

    reason: str
    incarnation: str | None
    ttl: float
    last_heartbeat: Instant | None
    lapsed: Instant | None
    expired: Instant
    untouched_for: (
        Annotated[float, Meta(description="Only rows untouched for so many seconds were its; None: all RUNNING rows.")]
        | None
    )
    observed: Annotated[bool, Meta(description="In mode observe: nothing of the host's was touched.")]
    decided_by: str
    transaction_id: int
    evidence: Mapping[str, Any]
    finished: Annotated[Instant, Meta(description="When the last of its work was back; None: it is not yet.")] | None
    recovered: Annotated[Instant, Meta(description="When the name was heard again.")] | None
    crash: Annotated[bool, Meta(description="Whether it counts against the work that it held.")] = False
    killers: Annotated[Mapping[str, str], Meta(description="The work that it was put down to, by kind.")] = {}


class Life(msgspec.Struct, frozen=True, kw_only=True):
    """One life of a worker name, as Postgres keeps it."""

    worker: str
    epoch: int
    incarnation: str | None
    ttl: float
    granted: Instant
    end: Annotated[End, Meta(description="None: nobody has ended it.")] | None
    gave_back: (
        Annotated[
            Mapping[str, int], Meta(description="Pieces of work put back at its end, by kind; None: not counted.")
        ]
        | None
    ) = None


class Leaked(msgspec.Struct, frozen=True, kw_only=True):
    """Why a worker that lived lost one row: the record that was written in the transaction that put it back."""

    incarnation: str | None
    decided_by: str
    transaction_id: int
    evidence: Mapping[str, Any]


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """One time that a piece of work was taken back, and the life that had held it."""

    worker: str
    epoch: int
    reclaim_count: int
    observed: bool
    reclaimed: Instant
    life: Life | None
    outcome: (
        Annotated[str, Meta(description="What became of it, if it did not go back: quarantined, exhausted.")] | None
    ) = None
    crash: Annotated[bool, Meta(description="Whether this counts against it.")] = False
    leaked: (
        Annotated[Leaked, Meta(description="Set if that life went on, and whatever ended it later is not the cause.")]
        | None
    ) = None


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """That a living worker left a row out of what it runs, which was told of: nothing was taken."""

    found: Instant
    epoch: int
    leaked: Leaked


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the host's as it stands."""

    status: str
    running: Annotated[bool, Meta(description="Whether that status says that its owner works on it.")]
    waiting: Annotated[bool, Meta(description="Whether that status says that anybody may take it.")]
    owner: str | None
    touched: Instant | None
    kind: str | None
    queue: str | None
    fixed: Annotated[bool, Meta(description="A reclaim has fixed that it goes back, and has not come to it yet.")]
    refused: Annotated[str, Meta(description="Why its table refuses to put it back, if it does.")] | None = None
    left_out: Annotated[LeftOut, Meta(description="Set if it leaked as it stands now.")] | None = None


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the acting service believes of one worker, and what keeps it from acting, if anything does."""

    state: Annotated[
        Literal["live", "lapsed", "ending", "none"],
        Meta(description="lapsed: silent too long, waits for the verdict; ending: proof was given; none: no lease."),
    ]
    reason: Annotated[str, Meta(description="Why its life ends, if it does.")] | None = None
    incarnation: str | None = None
    epoch: int | None = None
    ttl: Seconds | None = None
    silent_for: (
        Annotated[float, Meta(description="Seconds of hearing since its last beat; None: none heard.")] | None
    ) = None
    remaining: Annotated[float, Meta(ge=0, description="Seconds until its lease lapses if nothing is heard.")] = 0.0
    overdue: Annotated[float, Meta(ge=0, description="Seconds since it lapsed, or since the proof.")] = 0.0
    conflict: Annotated[bool, Meta(description="Two incarnations beat under its name.")] = False
    suspected: Annotated[str, Meta(description="Why it may be dead: silent, probe or disconnected.")] | None = None
    wedged: Annotated[bool, Meta(description="It says that it runs something, and gets nothing done.")] = False
    storm: Annotated[str, Meta(description="The storm that holds its lapse, in a line.")] | None = None
    storm_left: Annotated[float, Meta(ge=0, description="Seconds that it holds it at most; None: no end.")] | None = (
        None
    )
    paused: Annotated[str, Meta(description="Who has paused, since when, and why: nothing is taken.")] | None = None
    refused: Annotated[str, Meta(description="What Postgres had against ending it.")] | None = None
    contested: Annotated[bool, Meta(description="Somebody had its epoch locked when Postgres was asked.")] = False
    # The service itself.
    mode: Literal["act", "observe"]
    hearing: Annotated[bool, Meta(description="Whether heartbeats can be heard now.")]
    troubles: Annotated[list[str], Meta(description="What does not work, a line each.")]
    storms: Annotated[list[str], Meta(description="Storms that hold lapses now, a line each.")]
    listened_for: Annotated[Seconds, Meta(description="Seconds without a loss: what a sweep may believe.")]
    heartbeat_timeout: Seconds
    workflow_stuck_timeout: Seconds
    postgres_back: Annotated[
        Seconds,
        Meta(description="Seconds since Postgres was out of sight; the next two are for what is older."),
    ] = 0.0
    stale_after: Annotated[
        Seconds, Meta(description="How old its last recorded heartbeat has to be, if it is older than that.")
    ] = 0.0
    orphaned_after: Annotated[Seconds, Meta(description="For how long its work has to be untouched, likewise.")] = 0.0
    stale_worker_check_interval: Seconds


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a worker: by the registry, by Postgres, and by the acting service."""

    worker: str
    fault: Annotated[str, Meta(description="Why no worker can have this name.")] | None
    differs_in_case_from: str | None
    registered: Annotated[int, Meta(ge=0, description="Rows of the registry with its name.")]
    up: bool
    registry_heartbeat: Instant | None
    life: Annotated[Life, Meta(description="The last one that Postgres knows of.")] | None
    standing: Annotated[Standing, Meta(description="None: nobody could say.")] | None = None
    unanswered: Annotated[str, Meta(description="Why nobody could.")] | None = None
    forgotten: Annotated[Instant, Meta(description="Lives that ended before may be forgotten.")] | None = None


class Step(msgspec.Struct, frozen=True):
    """One thing that happened, in words."""

    when: Instant
    what: str
    worker: str
    epoch: int | None
    says: str


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of work: the row as it stands, how it was moved, and who has it. `steps` in the order of time."""

    work: str
    id: str
    table: Annotated[str, Meta(description="Where its row is; empty: no table of this kind is known any more.")]
    row: Annotated[Row, Meta(description="None: there is none any more.")] | None
    moves: Annotated[list[Move], Meta(description="The last ones, in the order of time.")]
    more: Annotated[bool, Meta(description="Whether there were moves before these.")]
    owner: Annotated[Owner, Meta(description="Who works on it.")] | None
    elsewhere: Annotated[bool, Meta(description="There is a row, which is of another kind, by its `where`.")] = False
    forgotten: Annotated[Instant, Meta(description="Moves from before are forgotten.")] | None = None
    sentence: str = ""
    steps: list[Step] = []


class WorkerTold(msgspec.Struct, frozen=True, kw_only=True):
    """One worker: its lives in the order of time, and how it stands."""

    owner: Owner
    lives: Annotated[list[Life], Meta(description="The last ones, in the order of time.")]
    more: Annotated[bool, Meta(description="Whether there were lives before these.")]
    holds: Annotated[Mapping[str, int], Meta(description="RUNNING pieces of work that bear its name, by kind.")]
    sentence: str = ""
    steps: list[Step] = []


class WhyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The story. `sentence` says all in one; where nothing is known, it says where was looked."""

    known: Annotated[bool, Meta(description="Whether there is anything to tell.")]
    looked_in: Annotated[list[str], Meta(description="The host's tables that were looked in.")]
    pieces: Annotated[list[Piece], Meta(description="Several, if tables share an id.")] = []
    worker: WorkerTold | None = None
    forgotten: Annotated[Instant, Meta(description="What was before may be forgotten; None: nothing is.")] | None = None
    sentence: str = ""
