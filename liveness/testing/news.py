"""Events that a test makes, in place of those of a stream."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import msgspec

from liveness.access import ANYBODY, Access
from liveness.addresses import servers_of
from liveness.client.consumer import API_PREFIX
from liveness.client.events import Event, check_arguments
from liveness.eventdata import EVENT_TYPES, event_data

_AT: Final = "2026-01-01T00:00:00Z"
_WORK: Final = "00000000-0000-4000-8000-000000000001"
# What an event says of which the test says nothing. What may be null is.
_USUAL: Final = {
    "workflow_id": _WORK,
    "task_id": "00000000-0000-4000-8000-000000000002",
    "worker": "w1",
    "former_worker": "w1",
    "epoch": 1,
    "former_epoch": 0,
    "reason": "lapsed",
    "former_reason": "lapsed",
    "ttl": 10.0,
    "reclaimed_at": _AT,
    "expired_at": _AT,
    "recovered_at": _AT,
    "reclaim_count": 1,
    "crash_count": 1,
    "crash_budget": 3,
    "suspects": 1,
    "former_crashes": [],
    "others": [],
    "via": "FAKE",
    "state": "held",
    "members": 3,
    "silent": 3,
    "held_for": 0.0,
    "work": "workflow",
    "work_id": _WORK,
    "cause": "silent",
    "progress": 0,
    "left_out_for": 10.0,
    "suspected_at": _AT,
    "still_since": _AT,
    "wedged_at": _AT,
    "leaked_at": _AT,
}
# By which field it is told what an event is about.
_SUBJECTS: Final = ("workflow_id", "task_id", "worker", "via")


class FakeEvents:
    """Called as `liveness.events`, it yields what the test adds, and notes what was finished.

        events = FakeEvents()
        monkeypatch.setattr(liveness, "events", events)
        events.add("workflow.reclaimed", workflow_id="7", reason="died")

    As there, an event counts as finished when the next one is asked for; one whose body raised or was left comes again
    to the next reader. Events of other `types` than those asked for stay. It goes on for ever: cancel the subscriber's
    task once `all_finished` has returned.
    """

    def __init__(self) -> None:
        self.finished: Final[list[Event]] = []
        """The events that were worked on to their end, in this order."""
        self._open: list[Event] = []
        self._number = 0
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, type: str, /, *, subject: str | None = None, **fields: Any) -> Event:  # noqa: A002 - as it is called in an Event
        """Add an event of this type, with these fields in its `data`, and return it; what is left out is filled in.

        Its `subject` is the one that `data` names, unless it is given: of work in tables of one's own, only it tells
        the id. Raises ValueError for what is no event of liveness.
        """
        kind = event_data(type)
        if kind is None:
            raise ValueError(f"there is no event type {type!r}: name one of {', '.join(EVENT_TYPES)}")
        names = kind.__struct_fields__
        unknown = [name for name in fields if name not in names]
        if unknown:
            raise ValueError(f"{type} has no field {unknown[0]!r}: it has {', '.join(names)}")
        try:
            data = msgspec.convert({name: fields.get(name, _USUAL.get(name)) for name in names}, kind)
        except msgspec.ValidationError as error:
            raise ValueError(f"{type} cannot be so: {error}") from error
        self._number += 1
        if subject is None:
            subject = next((str(getattr(data, name)) for name in _SUBJECTS if name in names), _WORK)
        event = Event(
            id=str(self._number), type=type, time=_AT, subject=subject, source="liveness", data=data, deliveries=1
        )
        self._open.append(event)
        self._idle.clear()
        self._news.set()
        return event

    async def all_finished(self) -> None:
        """Wait until every event that was added is finished."""
        await self._idle.wait()

    def __call__(  # noqa: PLR0913 - as the real one
        self,
        nats_url: str,
        *,
        durable: str,
        types: Sequence[str] | None = None,
        stream: str = "LIVENESS_EVENTS",
        event_prefix: str = "",
        observed: bool = False,
        ack_wait: float = 30.0,
        inbox_prefix: str = "",
        access: Access = ANYBODY,
        api_prefix: str = API_PREFIX,
    ) -> AsyncGenerator[Event, None]:
        """Yield the events, those of `types` only if given; the rest of the arguments makes no difference.

        Raises ValueError for those that `liveness.events` does not take.
        """
        del event_prefix, observed, inbox_prefix, access, api_prefix
        check_arguments(durable=durable, types=types, stream=stream, ack_wait=ack_wait)
        servers_of(nats_url)
        return self._yield_events(types)

    async def _yield_events(self, types: Sequence[str] | None) -> AsyncGenerator[Event, None]:
        while True:
            event = await self._next(types)
            finished = False
            try:
                yield event
                finished = True
            finally:
                self._settle(event, finished=finished)

    async def _next(self, types: Sequence[str] | None) -> Event:
        while True:
            for event in self._open:
                if types is None or event.type in types:
                    self._open.remove(event)
                    return event
            self._news.clear()
            await self._news.wait()

    def _settle(self, event: Event, *, finished: bool) -> None:
        if finished:
            self.finished.append(event)
        else:
            again = msgspec.structs.replace(event, deliveries=event.deliveries + 1)
            self._open.insert(0, again)
            self._news.set()
        if finished and len(self.finished) == self._number:
            self._idle.set()
