"""What liveness decided, event by event: which work was given back, which worker's epoch ended."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import msgspec
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import errors as js_errors

from liveness.access import ANYBODY, Access
from liveness.bounded import finish_within
from liveness.client.connection import Connection
from liveness.client.consumer import ACK, API_PREFIX, NAK, PATIENCE_SECONDS, TERM, Consumer
from liveness.client.problems import Problems, log
from liveness.errors import CannotStartError, MessageError
from liveness.eventdata import CloudEvent, EventData, event_data, sound_traceparent
from liveness.subjects import event_subject, name_fault

# What giving an unfinished event back may cost. Where it fails, `ack_wait` brings the event back.
CLOSE_SECONDS: Final = 1.0
# JetStream uses both names as file names and as one token of a subject.
_UNFIT: Final = frozenset(".*>/\\")
_MOST_NAME_BYTES: Final = 255

_envelope = msgspec.json.Decoder(CloudEvent)
_other_data = msgspec.json.Decoder(dict[str, Any])


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One event. `data` is typed by `type`, or a dict for a type that this version does not know."""

    id: str
    """Never changes, however often the event comes: drop repeats by it."""
    type: str
    time: str
    """When it happened by the database's clock, in RFC 3339."""
    subject: str
    """What it is about: the id of the work, or the name of the worker."""
    source: str
    data: EventData | dict[str, Any]
    deliveries: int
    """How often the event was delivered, this time included."""
    traceparent: str | None = None
    """W3C trace context of the span in which the service decided it; None of a service that is not traced."""


def events(  # noqa: PLR0913 - all but the first are named
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
    """Yield the events of the stream, each at least once, for ever.

        async with contextlib.aclosing(liveness.events(url, durable="billing", types=["workflow.reclaimed"])) as news:
            async for event in news:
                ...

    `durable` names the reader: the next run with the same name goes on where this one stopped, and several at once
    share the events. A new name begins with the oldest event that the stream still has. `types` leaves out all others.
    `observed` yields what mode `observe` would have done instead of what was done.

    An event counts as finished when the next one is asked for. When the body raises, breaks or is cancelled, its event
    comes again soon; with `aclosing` by the time that the block is left, without it a moment later. While a body works,
    for however long, nobody else gets its event. What was finished may come again after an outage all the same: drop
    repeats by `event.id`, within the transaction that the body makes.

    Outages of NATS, and a stream that is not there yet, are waited through and logged once (`liveness.client`). A
    message that is no event is logged and never delivered again. `ack_wait` is how many seconds after a reader died its
    event goes to another one. `nats_url` may name several servers, separated by commas; `access` is how to log in
    there, and says where answers come unless `inbox_prefix` does. A reader in another account than the stream's asks
    for its events under `api_prefix`, as that account imports it (deploy/nats).

    Raises ValueError for arguments that cannot be used, and while iterating CannotStartError when NATS refuses the
    reader as it is asked for.
    """
    check_arguments(durable=durable, types=types, stream=stream, ack_wait=ack_wait)
    subjects = _subjects(types, event_prefix, observed=observed)
    connection, problems = _connection(nats_url, durable, access, inbox_prefix)
    consumer = Consumer(
        connection,
        problems,
        stream=stream,
        durable=durable,
        subjects=subjects,
        ack_wait=ack_wait,
        api_prefix=api_prefix,
    )

    def wanted(event: Event, subject: str) -> bool:
        # One stream may also hold another mode's, another prefix's or the host's own messages; and what an earlier run
        # left unfinished comes again, whatever types this one wishes.
        return subject == event_subject(event.type, event_prefix, observed=observed) and (
            not subjects or subject in subjects
        )

    return _yield_events(consumer, connection, wanted)


async def make_reader(  # noqa: PLR0913 - all but the first are named
    nats_url: str,
    *,
    durable: str,
    types: Sequence[str] | None = None,
    stream: str = "LIVENESS_EVENTS",
    event_prefix: str = "",
    observed: bool = False,
    ack_wait: float = 30.0,
    access: Access = ANYBODY,
    seconds: float = 10.0,
) -> None:
    """Make the reader that `events` is with these arguments, and read nothing: for one that may not make itself.

    Whoever may make consumers can have JetStream publish on any subject of their account, a worker's heartbeat too, so
    permissions had better not let a reader (deploy/nats). `events` has to be given the same `types` and `ack_wait`.

    Raises ValueError for arguments that cannot be used, and CannotStartError when it is not made within `seconds`.
    """
    check_arguments(durable=durable, types=types, stream=stream, ack_wait=ack_wait)
    connection, problems = _connection(nats_url, durable, access, "")
    subjects = _subjects(types, event_prefix, observed=observed)
    consumer = Consumer(connection, problems, stream=stream, durable=durable, subjects=subjects, ack_wait=ack_wait)
    cause = ""
    try:
        async with asyncio.timeout(seconds):
            await consumer.make()
    except js_errors.APIError as error:
        cause = error.description or str(error)
    except (nats_errors.Error, OSError) as error:
        # Of a permission that is missing NATS tells beside the request, which goes unanswered.
        cause = problems.last or str(error) or "NATS does not answer"
    else:
        return
    finally:
        connection.cut()
    raise CannotStartError(f"the reader {durable!r} of the stream {stream!r} cannot be made: {cause}")


def _subjects(types: Sequence[str] | None, event_prefix: str, *, observed: bool) -> list[str]:
    return sorted({event_subject(kind, event_prefix, observed=observed) for kind in types or ()})


def _connection(nats_url: str, durable: str, access: Access, inbox_prefix: str) -> tuple[Connection, Problems]:
    problems = Problems(f"events for {durable}")
    connection = Connection(
        nats_url,
        f"liveness events for {durable}",
        patience=PATIENCE_SECONDS,
        problems=problems,
        access=access,
        inbox_prefix=inbox_prefix,
    )
    return connection, problems


def check_arguments(*, durable: str, types: Sequence[str] | None, stream: str, ack_wait: float) -> None:
    """Raise ValueError for arguments of `events` that cannot be used."""
    for setting, name in (("durable", durable), ("stream", stream)):
        fault = _name_fault(name)
        if fault is not None:
            raise ValueError(f"{setting} ({name!r}) {fault}: choose letters, digits, '-' and '_'")
    if types is not None and not types:
        raise ValueError("types is empty, so no event would ever come: leave it out for all types")
    for kind in types or ():
        fault = name_fault(kind)
        if fault is not None:
            raise ValueError(f"types names {kind!r}, which {fault}: name event types as in 'workflow.reclaimed'")
    if not (math.isfinite(ack_wait) and ack_wait > 0):
        raise ValueError(f"ack_wait ({ack_wait:g}) has to be a number of seconds above 0")


async def _yield_events(
    consumer: Consumer, connection: Connection, wanted: Callable[[Event, str], bool]
) -> AsyncGenerator[Event, None]:
    unsettled: Msg | None = None
    verdict = NAK
    try:
        while True:
            unsettled, verdict = await consumer.next(), NAK
            sequence = unsettled.metadata.sequence.stream
            try:
                event = read_event(unsettled.data, unsettled.metadata.num_delivered, unsettled.headers or {})
            except MessageError as error:
                log.warning("message %d of the stream is skipped for good: %s", sequence, error)
                verdict = TERM
            else:
                if wanted(event, unsettled.subject):
                    with consumer.working_on(unsettled):
                        yield event
                verdict = ACK
            await consumer.settle(unsettled, verdict)
            unsettled = None
    finally:
        try:
            await finish_within(CLOSE_SECONDS, consumer.close(unsettled, verdict))
        finally:
            connection.cut()


def read_event(payload: bytes, deliveries: int, headers: Mapping[str, str] = {}) -> Event:
    """Return the event that `payload` and its `headers` say. Pure. Raises MessageError for anything that is none."""
    try:
        envelope = _envelope.decode(payload)
        kind = event_data(envelope.type)
        data = (_other_data if kind is None else _decoder(kind)).decode(envelope.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"it is no event of liveness: {error}") from error
    return Event(
        id=envelope.id,
        type=envelope.type,
        time=envelope.time,
        subject=envelope.subject,
        source=envelope.source,
        data=data,
        deliveries=deliveries,
        traceparent=sound_traceparent(headers.get("traceparent")),
    )


@cache
def _decoder(kind: type[EventData]) -> "msgspec.json.Decoder[EventData]":
    return msgspec.json.Decoder(kind)


def _name_fault(name: str) -> str | None:
    if not name:
        return "is empty"
    if not name.isprintable() or " " in name or not _UNFIT.isdisjoint(name):
        return "contains white space or one of . * > / \\"
    if len(name.encode(errors="replace")) > _MOST_NAME_BYTES:
        return f"has more than {_MOST_NAME_BYTES} bytes"
    return None
