"""The news: committed events go from the outbox to the stream, at least once, and leave it when acknowledged.

Events of one worker are published in the order of the transactions that wrote them: none goes out before those of an
earlier transaction of the same worker were acknowledged.
"""

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice

import msgspec
import structlog

from liveness.eventdata import CloudEvent
from liveness.publishing import Event
from liveness.settings import Settings
from liveness.spans import Value, span
from liveness.store import Pending, Store
from liveness.subjects import event_subject

log = structlog.get_logger("liveness.relay")

# Events read and forgotten at once: enough that what Postgres is asked for each batch costs a few per cent of the
# whole, and some 3 MB of memory.
BATCH = 4_000
# While more work waits to be put back than one transaction takes: so many at once (a parcel more, at most), and so many
# a second. Flat out beside reclaims, on two cores, 100,000 events made the host's own transactions wait 50 ms.
BATCH_BESIDE, RATE_BESIDE = 500, 2_000.0
# But no longer than this (seconds): behind work that takes so long, news would wait whose work is back since then.
BESIDE_MOST = 10.0
# Reclaims that the span of one batch is linked to, as those whose events it carries: fewer than the 128 links that
# OpenTelemetry keeps.
LINKED = 100

PublishEvents = Callable[[Sequence[Event]], Awaitable[tuple[list[int], str | None]]]


class Relayed(msgspec.Struct):
    """What one round did: events acknowledged, and why it stopped if it did not come to the end."""

    published: int = 0
    complaint: str | None = None


class Relay:
    """Publishes the outbox through `publish`.

    `urgent` tells whether work waits to be put back: it goes before the news of what is back already. `clock` is the
    loop's monotonic time.
    """

    def __init__(
        self,
        *,
        store: Store,
        settings: Settings,
        publish: PublishEvents,
        urgent: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.published = 0
        # Whether the last look came to the end of the outbox.
        self.emptied = False
        self._urgent = urgent
        self._clock = clock
        self._rest_until = -math.inf
        self._urgent_since: float | None = None
        self._store = store
        self._publish = publish
        self._source = settings.subject_prefix
        self._event_prefix = settings.event_prefix
        # By OpenTelemetry's conventions for messaging.
        self._traced: Mapping[str, Value] = {
            "messaging.system": "nats",
            "messaging.operation.name": "publish",
            "messaging.operation.type": "send",
            "messaging.destination.name": settings.events_stream,
        }
        self._complaint: str | None = None

    @property
    def due(self) -> bool:
        """Whether there are, or may be, events that the stream would take."""
        return not self.emptied and self._complaint is None

    async def run_once(self) -> Relayed:
        """Publish what is in the outbox, until it is empty, something is more urgent, or nobody acknowledges."""
        done, tried, behind = Relayed(), False, 0
        self.emptied = False
        while done.complaint is None and (batch := self._batch()):
            pending = await self._store.outbox.pending(behind, batch)
            tried = True
            self.emptied = not pending
            if not pending:
                break
            behind = pending[-1].seq
            for group in in_commit_order(pending):
                done.complaint = await self._relay(group, done)
                if done.complaint is not None:
                    break
            self._rest_until = self._clock() + len(pending) / RATE_BESIDE
        if tried and done.complaint != self._complaint:
            self._complaint = done.complaint
            if done.complaint is None:
                log.info("relay_goes_on")
            else:
                log.warning("relay_stopped", cause=done.complaint)
        return done

    async def _relay(self, group: Sequence[Pending], done: Relayed) -> str | None:
        with span("relay", {**self._traced, "messaging.batch.message_count": len(group)}, kind="producer") as told:
            if told.collected:
                told.link(islice(dict.fromkeys(event.traceparent for event in group if event.traceparent), LINKED))
            positions, complaint = await self._publish([self._event(event) for event in group])
            told.note({"liveness.published": len(positions)})
            if complaint is not None:
                told.fail(complaint)
            await self._store.outbox.clear(acknowledged_rows(group, positions))
        done.published += len(positions)
        self.published += len(positions)
        return complaint

    def _batch(self) -> int:
        """Return how many events may be read now; 0 while they have to wait."""
        now = self._clock()
        if not self._urgent():
            self._urgent_since = None
            return BATCH
        if self._urgent_since is None:
            self._urgent_since = now
        if now - self._urgent_since > BESIDE_MOST:
            return BATCH
        return BATCH_BESIDE if now >= self._rest_until else 0

    def _event(self, pending: Pending) -> Event:
        envelope = CloudEvent(
            id=pending.id,
            source=self._source,
            type=pending.type,
            subject=pending.subject,
            time=pending.time,
            data=msgspec.Raw(pending.data.encode()),
        )
        return Event(
            id=pending.id,
            subject=event_subject(pending.type, self._event_prefix, observed=pending.observed),
            payload=msgspec.json.encode(envelope),
            traceparent=pending.traceparent,
        )


def acknowledged_rows(events: Sequence[Pending], positions: Sequence[int]) -> list[int]:
    """Return the rows of which every event is among the acknowledged `positions` of `events`. Pure."""
    acknowledged = set(positions)
    owing = {event.seq for position, event in enumerate(events) if position not in acknowledged}
    return [seq for seq in dict.fromkeys(event.seq for event in events) if seq not in owing]


def in_commit_order(events: Sequence[Pending]) -> list[list[Pending]]:
    """Split `events` so that no group holds events of one worker from two transactions. Pure."""
    groups: list[list[Pending]] = []
    transactions: dict[str, int] = {}
    for event in events:
        if not groups or transactions.get(event.worker, event.transaction_id) != event.transaction_id:
            groups.append([])
            transactions.clear()
        transactions[event.worker] = event.transaction_id
        groups[-1].append(event)
    return groups
