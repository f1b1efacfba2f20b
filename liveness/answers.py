"""What commands ask the acting replica on `<prefix>.api.<verb>`, and what it answers. Pure.

Every answer is a JSON object; one with `error` says in a line why nothing was done.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from liveness.figures import past, seconds
from liveness.messages import Seconds

# Workers in one answer: far below what makes an answer too large for a NATS message of 1 MiB.
PAGE = 500

# Of the last ends and reclaims, each.
RECENT_MOST = 50

Count = Annotated[int, Meta(ge=0)]


class Pause(msgspec.Struct, frozen=True):
    """That an operator has paused: nothing is taken, whatever the reason, until it ends."""

    by: Annotated[str, Meta(description="Who, as user@host unless told otherwise.")]
    since: Annotated[str, Meta(description="RFC 3339, UTC, by the database's clock.")]
    held_for: Annotated[float, Meta(ge=0, description="Seconds since then.")]
    why: Annotated[str, Meta(description="The reason that was given; empty if none was.")] = ""
    left: (
        Annotated[float, Meta(description="Seconds until it ends by itself; None: until somebody resumes.")] | None
    ) = None

    def __str__(self) -> str:
        """The whole in a line."""
        left = "until `liveness resume`" if self.left is None else f"for {seconds(max(self.left, 0.0))} more"
        reason = f": {self.why}" if self.why else ""
        return f"paused by {self.by} since {self.since} ({past(self.held_for)}), {left}{reason}"


class StatusRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`status`: which page of the workers, in the order of their remaining time."""

    offset: Annotated[int, Meta(ge=0, le=2**31, description="Behind so many workers.")] = 0
    limit: Annotated[int, Meta(ge=0, le=2**31, description="So many workers at most.")] = PAGE
    name: Annotated[str, Meta(max_length=1_024, description="Only those with this in their names, in any case.")] = ""
    recent: Annotated[int, Meta(ge=0, le=RECENT_MOST, description="So many of the last ends and reclaims at most.")] = 0


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker as the book sees it."""

    worker: str
    state: Annotated[
        Literal["live", "draining", "suspect", "wedged", "lapsed", "ending"],
        Meta(
            description="draining: it says that it begins nothing new, and leaves when it is done; "
            "suspect: it may be dead, and loses nothing yet; wedged: it beats and gets nothing done; "
            "lapsed: silent too long, waits for the verdict; ending: proof was given."
        ),
    ]
    incarnation: str | None
    epoch: Annotated[int, Meta(description="None until Postgres has issued it.")] | None
    ttl: Seconds
    remaining: Annotated[float, Meta(ge=0, description="Seconds until its lease lapses if nothing is heard.")]
    silent_for: Annotated[float, Meta(description="Seconds since its last heartbeat; None: none heard yet.")] | None
    running: (
        Annotated[int, Meta(ge=0, description="Pieces of work it holds in the database; None: Postgres has not said.")]
        | None
    )


class Expired(msgspec.Struct, frozen=True, kw_only=True):
    """A life that ended."""

    worker: str
    epoch: int
    reason: str
    because: Annotated[str, Meta(description="The reason in words.")]
    at: Annotated[str, Meta(description="RFC 3339, UTC, by the database's clock.")]
    ago: Annotated[float, Meta(description="Seconds.")]
    observed: Annotated[bool, Meta(description="In mode observe: nothing of the host's was touched.")] = False
    finished: Annotated[bool, Meta(description="Whether all of its work is back.")] = True
    recovered: Annotated[bool, Meta(description="Whether the name was heard again since.")] = False


class Moved(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work that was taken back."""

    work: Annotated[str, Meta(description="Its kind.")]
    id: str
    worker: Annotated[str, Meta(description="Who had it.")]
    epoch: int
    reason: Annotated[str, Meta(description="None: it is not kept any more.")] | None
    at: Annotated[str, Meta(description="RFC 3339, UTC, by the database's clock.")]
    ago: Annotated[float, Meta(description="Seconds.")]
    observed: Annotated[bool, Meta(description="In mode observe: nothing of the host's was touched.")] = False
    outcome: (
        Annotated[str, Meta(description="What became of it, if it did not go back: quarantined, exhausted.")] | None
    ) = None


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The service as it sees itself."""

    version: str
    mode: Literal["act", "observe"]
    troubles: Annotated[list[str], Meta(description="What does not work, a line each; empty when ready.")]
    term: Annotated[int, Meta(ge=0, description="The term under which this replica acts.")] | None
    hearing: Annotated[bool, Meta(description="Whether heartbeats can be heard now.")]
    gaps: Annotated[int, Meta(ge=0, description="How often hearing was interrupted since the start.")]
    not_heard: Annotated[float, Meta(ge=0, description="Seconds since the start in which nothing could be heard.")]
    storms: Annotated[list[str], Meta(description="Storms that hold lapses now, a line each.")]
    conflicts: Annotated[list[str], Meta(description="Names under which two incarnations beat.")]
    refused: Annotated[int, Meta(ge=0, description="Rows that their tables refuse to put back.")] = 0
    uptime: Seconds
    leases: Count
    wanting: Annotated[int, Meta(ge=0, description="Leases that wait for an epoch.")]
    ending: Annotated[int, Meta(ge=0, description="Leases that wait for a verdict.")]
    outbox: Annotated[int, Meta(ge=0, description="Events that are not published yet.")] | None
    outbox_oldest: Annotated[float, Meta(ge=0, description="Seconds the oldest of them has waited.")] | None
    counts: Mapping[str, int]
    workers: list[WorkerStatus]
    suspects: Annotated[list[str], Meta(description="Names that are suspected; the first of them.")] = []
    bounds: Annotated[list[str], Meta(description="Bounds that were hit lately, a line each.")] = []
    wedged: Annotated[list[str], Meta(description="Names that beat and get nothing done; the first of them.")] = []
    paused: Annotated[Pause, Meta(description="Set while nothing is taken because an operator has said so.")] | None = (
        None
    )
    leads: Annotated[bool, Meta(description="Whether this replica acts, or follows the one that does.")] = True
    nats: Annotated[bool, Meta(description="Whether the connection to NATS stands.")] = True
    postgres: Annotated[bool, Meta(description="Whether Postgres answered just now.")] = True
    matching: Annotated[int, Meta(ge=0, description="Leases with the name that was asked for.")] | None = None
    ends: Annotated[list[Expired], Meta(description="The last lives that ended, the last one first.")] = []
    moves: Annotated[list[Moved], Meta(description="What was taken back last, the last one first.")] = []


class SweepRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`sweep`: look through the database now."""

    dry_run: Annotated[bool, Meta(description="Only say what would be taken.")] = False


class Swept(msgspec.Struct, kw_only=True):
    """What a sweep found and did. Names by find."""

    dry_run: bool = False
    lapsed: Annotated[
        list[str], Meta(description="Leases that ran out while a command without a running service listened.")
    ] = []
    stale: Annotated[list[str], Meta(description="Up in the registry, silent for too long.")] = []
    orphaned: Annotated[list[str], Meta(description="Not up, and owner of RUNNING work that nobody touches.")] = []
    ending: Annotated[
        list[str],
        Meta(
            description="With `dry_run`: lives that are over already and wait for a verdict, as for the end of a pause."
        ),
    ] = []
    too_early: Annotated[list[str], Meta(description="Not listened for long enough yet.")] = []
    listen: Annotated[float, Meta(ge=0, description="Seconds until all of those are listened for, at the least.")] = 0.0
    ambiguous: Annotated[
        dict[str, str], Meta(description="Name to the reason why nobody can say whose work it is.")
    ] = {}
    refused: Annotated[dict[str, str], Meta(description="Name to what Postgres had against ending it.")] = {}
    held: Annotated[str | None, Meta(description="Why it took nothing more of what it found.")] = None
    ownerless: Annotated[Mapping[str, int], Meta(description="RUNNING rows without an owner, by kind of work.")] = {}
    ended: Annotated[int, Meta(ge=0, description="Lives ended.")] = 0
    items: Annotated[int, Meta(ge=0, description="Pieces of work put back.")] = 0


class ReclaimRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`reclaim`: give the work of one worker back, on the operator's word."""

    worker: Annotated[str, Meta(min_length=1)]
    dry_run: Annotated[bool, Meta(description="Only say what would be taken.")] = False
    force: Annotated[bool, Meta(description="Even if the worker holds a lease that has not lapsed.")] = False


class ReclaimAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `reclaim` did."""

    worker: str
    heard: Annotated[str, Meta(description="What is known of the worker, in a line.")]
    dry_run: bool
    held: Annotated[int, Meta(ge=0, description="Pieces of work the worker held.")]
    reclaimed: Annotated[int, Meta(ge=0, description="Pieces of work put back.")]
    epoch: Annotated[int, Meta(description="The epoch that ended; None if none did.")] | None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why nothing was done."""

    error: str
