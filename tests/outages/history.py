"""What Postgres, the event stream and the workers' diaries say in the end, put together for the checker."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import asyncpg
from nats import connect as connect_to_nats
from nats.js.api import AckPolicy, ConsumerConfig

from tests.outages.fleet import Life
from tests.outages.stage import Disturbance, Stage

FETCH_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Change:
    """One UPDATE of one row. Wall clock, seconds; Postgres runs on the same machine as the workers."""

    at: float
    id: str
    from_status: str
    from_owner: str | None
    from_life: str | None
    to_status: str
    to_owner: str | None
    to_life: str | None


@dataclass(frozen=True)
class Note:
    """One line of a worker's diary."""

    at: float
    what: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class LifeStory:
    """A life as its killer and itself knew it."""

    worker: str
    incarnation: str
    began: float
    ended: float | None
    silences: list[tuple[float, float, str]]
    notes: list[Note]


@dataclass(frozen=True)
class History:
    """Everything that the rules are checked against."""

    at: float
    ttl: float
    lives: dict[str, LifeStory]
    disturbances: list[tuple[float, float, str]]
    changes: list[Change]
    running: list[tuple[str, str | None, str | None]]
    """Id, owner and life of each row that is RUNNING."""
    epochs: list[dict[str, Any]]
    expirations: list[dict[str, Any]]
    reclaims: list[dict[str, Any]]
    outbox: int
    events: list[dict[str, Any]]
    """In the stream's order; `sequence` and `at` (when it was committed) are added."""


def clock(moment: float) -> str:
    """A moment as people read it: the time of day, UTC, with milliseconds."""
    return datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%S.%f")[:-3]


def story_of(life: Life, now: float) -> LifeStory:
    """Return the life with its diary, its own stalls among the silences."""
    notes = [Note(note.pop("t"), note.pop("what"), note) for note in life.notes()]
    silences = [(silence.begin, silence.end or now, silence.why) for silence in life.silences]
    for note in notes:
        if note.what == "stall":
            seconds = note.fields["seconds"]
            silences.append((note.at - seconds, note.at, f"it noted a stall of {seconds:.2f} s itself"))
    return LifeStory(life.worker, life.incarnation, life.began, life.ended, silences, notes)


def _seconds(row: "asyncpg.Record") -> dict[str, Any]:
    return {name: value.timestamp() if isinstance(value, datetime) else value for name, value in dict(row).items()}


async def read_events(url: str, stream: str = "LIVENESS_EVENTS") -> list[dict[str, Any]]:
    """Return all that the stream holds now."""
    client = await connect_to_nats(url)
    try:
        jetstream = client.jetstream()
        total = (await jetstream.stream_info(stream)).state.messages
        reading = await jetstream.pull_subscribe("", stream=stream, config=ConsumerConfig(ack_policy=AckPolicy.NONE))
        found: list[dict[str, Any]] = []
        while len(found) < total:
            for message in await reading.fetch(min(total - len(found), 500), timeout=FETCH_SECONDS):
                event = json.loads(message.data)
                event["sequence"] = message.metadata.sequence.stream
                event["at"] = datetime.fromisoformat(event["time"]).timestamp()
                found.append(event)
        await reading.unsubscribe()
    finally:
        await client.close()
    return found


async def read_history(stage: Stage) -> History:
    """Read everything, Postgres in one snapshot. Nothing should be under way."""
    async with stage.database() as database, database.transaction(isolation="repeatable_read", readonly=True):
        # When the transaction began, not by a clock that is read behind the snapshot: what a worker noted between these
        # is not in it.
        now = (await database.fetchval("SELECT now()")).timestamp()
        changes = [
            Change(
                at=row["at"].timestamp(),
                id=str(row["id"]),
                from_status=row["from_status"],
                from_owner=row["from_owner"],
                from_life=row["from_life"],
                to_status=row["to_status"],
                to_owner=row["to_owner"],
                to_life=row["to_life"],
            )
            for row in await database.fetch("SELECT * FROM history ORDER BY seq")
        ]
        running = [
            (row["id"], row["worker_id"], row["claimed_by"])
            for row in await database.fetch(
                "SELECT id::text, worker_id, claimed_by FROM workflow_execution WHERE status = 'RUNNING'"
            )
        ]
        epochs = list(map(_seconds, await database.fetch("SELECT * FROM liveness.epoch ORDER BY worker, epoch")))
        expirations = list(
            map(_seconds, await database.fetch("SELECT * FROM liveness.expiration ORDER BY worker, epoch"))
        )
        reclaims = list(map(_seconds, await database.fetch("SELECT * FROM liveness.reclaim ORDER BY reclaimed_at, id")))
        outbox = await database.fetchval("SELECT coalesce(sum(events), 0)::bigint FROM liveness.outbox")
    return History(
        at=now,
        ttl=stage.ttl,
        lives={life.incarnation: story_of(life, now) for life in stage.fleet.lives},
        disturbances=[(it.begin, it.end or now, it.what) for it in _ordered(stage.disturbances)],
        changes=changes,
        running=running,
        epochs=epochs,
        expirations=expirations,
        reclaims=reclaims,
        outbox=outbox,
        events=await read_events(stage.nats.url),
    )


def _ordered(disturbances: list[Disturbance]) -> list[Disturbance]:
    return sorted(disturbances, key=lambda it: it.begin)
