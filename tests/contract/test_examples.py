"""The golden messages: schema and code agree on each of them."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec
import pytest

from liveness.answers import ReclaimAnswer, ReclaimRequest, Refusal, StatusAnswer, StatusRequest, SweepRequest, Swept
from liveness.errors import MessageError
from liveness.eventdata import EVENT_TYPES, CloudEvent, EventHeaders, sound_traceparent
from liveness.facts import WhyAnswer, WhyRequest
from liveness.messages import (
    Goodbye,
    Heartbeat,
    HelloAnswer,
    Superseded,
    decode_goodbye,
    decode_heartbeat,
    decode_hello,
)
from tests.contract.conftest import example_paths, message_of, name_of, read, validator


def _event(payload: bytes) -> object:
    envelope = msgspec.json.decode(payload, type=CloudEvent)
    return msgspec.json.decode(envelope.data, type=EVENT_TYPES[envelope.type])


def _beat(payload: bytes) -> Heartbeat:
    beat, complaint = decode_heartbeat(payload)
    assert complaint is None
    return beat


DECODED_BY: Mapping[str, Callable[[bytes], object]] = {
    "heartbeat": _beat,
    "goodbye": decode_goodbye,
    "hello": decode_hello,
    "hello-answer": partial(msgspec.json.decode, type=HelloAnswer),
    "superseded": partial(msgspec.json.decode, type=Superseded),
    "status-request": partial(msgspec.json.decode, type=StatusRequest),
    "status-answer": partial(msgspec.json.decode, type=StatusAnswer),
    "sweep-request": partial(msgspec.json.decode, type=SweepRequest),
    "sweep-answer": partial(msgspec.json.decode, type=Swept),
    "reclaim-request": partial(msgspec.json.decode, type=ReclaimRequest),
    "reclaim-answer": partial(msgspec.json.decode, type=ReclaimAnswer),
    "why-request": partial(msgspec.json.decode, type=WhyRequest),
    "why-answer": partial(msgspec.json.decode, type=WhyAnswer),
    "refusal": partial(msgspec.json.decode, type=Refusal),
    "event-headers": partial(msgspec.json.decode, type=EventHeaders),
    **{event_type.replace(".", "-"): _event for event_type in EVENT_TYPES},
}


def bad_ones(message: str) -> list[Path]:
    """Return the bad examples of one message."""
    return [path for path in example_paths("bad") if message_of(path) == message]


@pytest.mark.parametrize("path", example_paths("good"), ids=name_of)
def test_good_example(path: Path) -> None:
    """A good message passes its schema, decodes with our types, and what those encode again passes too."""
    judge = validator(message_of(path))
    judge.validate(read(path))
    decoded = DECODED_BY[message_of(path)](path.read_bytes())
    if not isinstance(decoded, tuple(EVENT_TYPES.values())):
        judge.validate(msgspec.to_builtins(decoded))


@pytest.mark.parametrize("path", example_paths("bad"), ids=name_of)
def test_bad_example(path: Path) -> None:
    """A bad message is refused by its schema."""
    assert not validator(message_of(path)).is_valid(read(path))


@pytest.mark.parametrize("path", bad_ones("heartbeat"), ids=name_of)
def test_bad_heartbeat_beats(path: Path) -> None:
    """A heartbeat that its schema refuses is a heartbeat all the same, with a complaint and nothing unusable in it."""
    beat, complaint = decode_heartbeat(path.read_bytes())
    assert complaint
    validator("heartbeat").validate(msgspec.to_builtins(beat))


@pytest.mark.parametrize("path", bad_ones("goodbye"), ids=name_of)
def test_bad_goodbye_ends_nothing(path: Path) -> None:
    """A goodbye that its schema refuses is an error, for it would take work away."""
    with pytest.raises(MessageError):
        decode_goodbye(path.read_bytes())


@pytest.mark.parametrize("path", bad_ones("hello"), ids=name_of)
def test_bad_hello_begins_nothing(path: Path) -> None:
    """A hello that its schema refuses is an error, and its worker is told what to send."""
    with pytest.raises(MessageError, match="incarnation, a text of 1 to 64"):
        decode_hello(path.read_bytes())


@pytest.mark.parametrize("message", ["status-request", "sweep-request", "reclaim-request", "why-request"])
def test_bad_request_is_refused(message: str) -> None:
    """A request that its schema refuses does not decode."""
    for path in bad_ones(message):
        with pytest.raises(msgspec.ValidationError):
            DECODED_BY[message](path.read_bytes())


@pytest.mark.parametrize("path", [path for path in bad_ones("event-headers") if "trace" in path.stem], ids=name_of)
def test_bad_trace_context_is_none(path: Path) -> None:
    """An event whose trace context is none has none, and is an event all the same."""
    assert sound_traceparent(read(path)["traceparent"]) is None
    with pytest.raises(msgspec.ValidationError):
        DECODED_BY["event-headers"](path.read_bytes())


def test_empty_payloads() -> None:
    """What no schema can say: a heartbeat without payload beats, such a goodbye is a release, such a hello nothing."""
    assert decode_heartbeat(b"") == (Heartbeat(), None)
    assert decode_goodbye(b"") == Goodbye()
    assert decode_goodbye(b"").reason == "released"
    with pytest.raises(MessageError):
        decode_hello(b"")
