"""What the events say: the data of each type, and the envelope. Pure.

The types are the one source of the published contract: `schemas/messages` is generated from them.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from liveness.messages import Epoch, Instant, Reason, Seconds


class WorkReclaimed(msgspec.Struct, frozen=True, kw_only=True):
    """What every `*.reclaimed` event says of one piece of work.

    Of work that the settings describe (`[[work]]`, named `job`): `job.reclaimed`. The id is in the event's `subject`,
    and in its data as `job_id`.
    """

    kind: str | None
    queue: str | None
    former_worker: str
    incarnation: str | None
    epoch: Epoch
    reason: Reason
    last_heartbeat_at: Instant | None
    lapsed_at: Instant | None
    reclaimed_at: Instant
    reclaim_count: Annotated[int, Meta(ge=1, description="How often this piece of work was reclaimed so far.")]


class WorkflowReclaimed(WorkReclaimed, frozen=True, kw_only=True):
    """`workflow.reclaimed`: a workflow is PENDING again, its owner cleared."""

    workflow_id: str


class TaskReclaimed(WorkReclaimed, frozen=True, kw_only=True):
    """`task.reclaimed`: a task is PENDING again, its owner cleared."""

    task_id: str


class FormerCrash(msgspec.Struct, frozen=True, kw_only=True):
    """The death of a worker on which a piece of work ran."""

    worker: str
    epoch: Epoch
    reason: Reason
    at: Instant
    suspects: Annotated[int, Meta(ge=0, description="How much of its kind ran on that worker, with itself.")]


class OtherSuspect(msgspec.Struct, frozen=True, kw_only=True):
    """Another piece of work that ran on the worker that died."""

    id: str
    crash_count: Annotated[int, Meta(ge=1)]


class WorkCrashing(WorkReclaimed, frozen=True, kw_only=True):
    """What `*.crashing` and `*.quarantined` say of work whose workers keep dying, and the evidence."""

    crash_count: Annotated[int, Meta(ge=1, description="Workers that died lately while they ran it.")]
    crash_budget: Annotated[int, Meta(ge=1, description="With how many it is told of, or set aside.")]
    suspects: Annotated[int, Meta(ge=1, description="How much of its kind ran on the worker that died, with itself.")]
    former_crashes: Annotated[list[FormerCrash], Meta(description="The crashes before this one, the newest first.")]
    others: Annotated[list[OtherSuspect], Meta(description="What ran beside it, most suspect first.")]


class WorkflowCrashing(WorkCrashing, frozen=True, kw_only=True):
    """`workflow.crashing`: its workers keep dying; it went back to PENDING all the same."""

    workflow_id: str


class TaskCrashing(WorkCrashing, frozen=True, kw_only=True):
    """`task.crashing`: its workers keep dying; it went back to PENDING all the same."""

    task_id: str


class WorkflowQuarantined(WorkCrashing, frozen=True, kw_only=True):
    """`workflow.quarantined`: its workers kept dying, so it was set aside; it did not go back."""

    workflow_id: str


class TaskQuarantined(WorkCrashing, frozen=True, kw_only=True):
    """`task.quarantined`: its workers kept dying, so it was set aside; it did not go back."""

    task_id: str


class WorkflowExhausted(WorkReclaimed, frozen=True, kw_only=True):
    """`workflow.exhausted`: its worker died, and its own attempts were used up; it failed and did not go back."""

    workflow_id: str


class TaskExhausted(WorkReclaimed, frozen=True, kw_only=True):
    """`task.exhausted`: its worker died, and its own attempts were used up; it failed and did not go back."""

    task_id: str


class WorkerEnded(msgspec.Struct, frozen=True, kw_only=True):
    """`worker.expired` and `worker.released`: an epoch of the worker is over for good."""

    worker: str
    incarnation: str | None
    epoch: Epoch
    reason: Reason
    ttl: Seconds
    last_heartbeat_at: Instant | None
    lapsed_at: Instant | None
    expired_at: Instant


class WorkerRecovered(msgspec.Struct, frozen=True, kw_only=True):
    """`worker.recovered`: a worker whose epoch had been ended beats again, under a new epoch.

    Or one that was suspected is heard again, or one that was wedged gets something done (`former_reason` is `suspected`
    or `wedged`): then nothing had ended, the epoch is the former one, and `expired_at` is null.
    """

    worker: str
    incarnation: str | None
    epoch: Epoch
    former_incarnation: str | None
    former_epoch: Epoch
    former_reason: Annotated[
        str, Meta(description="Why the epoch had ended, as in other events; or `suspected` or `wedged`.")
    ]
    expired_at: Instant | None
    recovered_at: Instant


class WorkerSuspected(msgspec.Struct, frozen=True, kw_only=True):
    """`worker.suspected`: a worker may be dead. It loses nothing before its ttl; `worker.recovered` takes it back."""

    worker: str
    incarnation: str | None
    epoch: Epoch
    cause: Annotated[
        str,
        Meta(
            description="`silent` for two of its intervals, `probe` that nobody answered, or `disconnected` from NATS; "
            "more may come."
        ),
    ]
    ttl: Seconds
    last_heartbeat_at: Instant | None
    suspected_at: Instant


class WorkerWedged(msgspec.Struct, frozen=True, kw_only=True):
    """`worker.wedged`: a worker beats, runs something, and gets nothing done. Nothing is taken from it."""

    worker: str
    incarnation: str | None
    epoch: Epoch
    progress: Annotated[int, Meta(ge=0, description="Where it stands still.")]
    running: Annotated[int, Meta(ge=0, description="How many ids it lists; null: it lists none, and runs some.")] | None
    still_since: Instant
    wedged_at: Instant


class WorkerLeaked(msgspec.Struct, frozen=True, kw_only=True):
    """`worker.leaked`: a piece of work is RUNNING in the name of a worker that lives and does not list it.

    One for each piece of work. It is left as it is; where `leak_action` is `reclaim`, it goes back instead, and is told
    as all that does, with the reason `leaked`.
    """

    worker: str
    incarnation: str | None
    epoch: Epoch
    work: Annotated[str, Meta(description="What kind of work it is: workflow, task.")]
    work_id: str
    kind: str | None
    queue: str | None
    left_out_for: Seconds
    leaked_at: Instant


class LivenessStorm(msgspec.Struct, frozen=True, kw_only=True):
    """`liveness.storm`: nearly everybody who is heard by one NATS server fell silent at once, or it is over."""

    via: Annotated[str, Meta(description="Id of the NATS server; empty for workers that state none.")]
    state: Annotated[
        str, Meta(description="`held`: nothing is taken from them; `released`: what is still silent goes; `over`.")
    ]
    members: Annotated[int, Meta(ge=0, description="How many workers were heard by that server.")]
    silent: Annotated[int, Meta(ge=0, description="How many of them were silent.")]
    held_for: Seconds


EventData = (
    WorkReclaimed
    | WorkCrashing
    | WorkflowReclaimed
    | TaskReclaimed
    | WorkflowCrashing
    | TaskCrashing
    | WorkflowQuarantined
    | TaskQuarantined
    | WorkflowExhausted
    | TaskExhausted
    | WorkerEnded
    | WorkerRecovered
    | WorkerSuspected
    | WorkerWedged
    | WorkerLeaked
    | LivenessStorm
)
EVENT_TYPES: Final[Mapping[str, type[EventData]]] = {
    "workflow.reclaimed": WorkflowReclaimed,
    "task.reclaimed": TaskReclaimed,
    "workflow.crashing": WorkflowCrashing,
    "task.crashing": TaskCrashing,
    "workflow.quarantined": WorkflowQuarantined,
    "task.quarantined": TaskQuarantined,
    "workflow.exhausted": WorkflowExhausted,
    "task.exhausted": TaskExhausted,
    "worker.expired": WorkerEnded,
    "worker.released": WorkerEnded,
    "worker.recovered": WorkerRecovered,
    "worker.suspected": WorkerSuspected,
    "worker.wedged": WorkerWedged,
    "worker.leaked": WorkerLeaked,
    "liveness.storm": LivenessStorm,
}


# What is told of work, whatever its tables are called.
WORK_EVENTS: Final[Mapping[str, type[EventData]]] = {
    "reclaimed": WorkReclaimed,
    "crashing": WorkCrashing,
    "quarantined": WorkCrashing,
    "exhausted": WorkReclaimed,
}


def event_data(event_type: str) -> type[EventData] | None:
    """Return what the data of an event of `event_type` are, or None if that is not known."""
    return EVENT_TYPES.get(event_type) or WORK_EVENTS.get(event_type.rpartition(".")[2])


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The envelope of every event: CloudEvents 1.0, JSON, structured mode.

    `id` is the outbox id and never changes, however often the event is delivered; consumers drop repeats by it.
    """

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, Meta(description="The same for every delivery of this event.")]
    source: Annotated[str, Meta(description="The subject prefix of the service.")]
    type: Annotated[str, Meta(description="What happened; the NATS subject without its prefix.")]
    subject: Annotated[str, Meta(description="To whom: the id of the work, or the worker's name.")]
    time: Annotated[Instant, Meta(description="When it was committed.")]
    datacontenttype: Literal["application/json"] = "application/json"
    data: msgspec.Raw


# W3C trace context, version 00. Neither id is all zeros.
TRACEPARENT: Final = r"^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$"


class EventHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """The NATS headers of every event."""

    message_id: Annotated[str, Meta(description="The event's id, by which the stream drops repeats for a while.")] = (
        msgspec.field(name="Nats-Msg-Id")
    )
    expected_stream: Annotated[str, Meta(description="The stream that is to take it, and no other.")] = msgspec.field(
        name="Nats-Expected-Stream"
    )
    content_type: Literal["application/cloudevents+json"] = msgspec.field(name="Content-Type")
    traceparent: (
        Annotated[
            str,
            Meta(
                pattern=TRACEPARENT,
                description="W3C trace context of the span in which it was decided; only of services that are traced.",
            ),
        ]
        | UnsetType
    ) = UNSET


_SOUND: Final = re.compile(TRACEPARENT.rstrip("$"))


@lru_cache(maxsize=1024)
def sound_traceparent(text: str | None) -> str | None:
    """Return a trace context if it is one: whatever else it is, it must not keep an event from anybody."""
    return text if text is not None and _SOUND.fullmatch(text) else None
