"""The AsyncAPI document says what the code does: subjects, messages, directions. Needs no npm."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ruamel.yaml import YAML

import liveness
from liveness.api import Api
from liveness.assembly import Assembly
from liveness.eventdata import EVENT_TYPES
from liveness.settings import Settings
from liveness.subjects import Subjects, event_subject
from tests.contract.conftest import SCHEMAS, example_paths, message_of, read, schema_paths, validator

DOCUMENT = SCHEMAS / "asyncapi.yaml"
SETTINGS = Settings()
SUBJECTS = Subjects(SETTINGS.subject_prefix)
# A message that is nothing but its subject.
WITHOUT_PAYLOAD = "probe"
# What every event has beside its payload.
HEADERS = "event-headers"


@cache
def document() -> dict[str, Any]:
    """Return the document as it is written."""
    loaded: dict[str, Any] = YAML(typ="safe", pure=True).load(DOCUMENT)
    return loaded


def references(part: Any) -> Iterator[str]:
    """Yield every `$ref` in a part of the document."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolved(reference: str) -> Any:
    """Return what a `$ref` of the document stands for; KeyError or OSError if nothing is there."""
    file, _, pointer = reference.partition("#")
    found = read(SCHEMAS / file) if file else document()
    for step in pointer.strip("/").split("/") if pointer else []:
        found = found[step]
    return resolved(found["$ref"]) if isinstance(found, dict) and "$ref" in found else found


def channels_of(action: str) -> set[str | None]:
    """Return the subjects on which the service does `action`."""
    operations = document()["operations"].values()
    return {resolved(one["channel"]["$ref"])["address"] for one in operations if one["action"] == action}


def served_subjects() -> set[str]:
    """Return the subjects on which the API really takes requests."""
    heard: list[str] = []
    bus = SimpleNamespace(subscribe=lambda subject, _sink: heard.append(subject))
    Api(cast("Assembly", SimpleNamespace(settings=SETTINGS, subjects=SUBJECTS, bus=bus)), list)
    return set(heard)


def test_version() -> None:
    """The document is of the version of the package that it describes."""
    assert document()["asyncapi"] == "3.0.0"
    assert document()["info"]["version"] == liveness.__version__


@pytest.mark.parametrize("reference", sorted(set(references(document()))))
def test_reference_resolves(reference: str) -> None:
    """Every `$ref` leads somewhere."""
    assert resolved(reference) is not None


def test_service_receives() -> None:
    """What the service receives is on the subjects that it subscribes to, requests included."""
    heard = {SUBJECTS.heartbeat("{worker}"), SUBJECTS.goodbye("{worker}"), SUBJECTS.hello("{worker}")}
    assert channels_of("receive") == heard | served_subjects()


def test_service_sends() -> None:
    """What the service sends is on the subjects that it publishes on: a channel for every event type, and no other."""
    events = {event_subject(event_type, SETTINGS.event_prefix) for event_type in EVENT_TYPES}
    assert channels_of("send") == events | {SUBJECTS.superseded("{worker}"), SUBJECTS.probe("{worker}")}


def test_no_channel_without_operation() -> None:
    """Every channel is used, if only for replies."""
    replies = {one["reply"]["channel"]["$ref"] for one in document()["operations"].values() if "reply" in one}
    used = replies | {one["channel"]["$ref"] for one in document()["operations"].values()}
    assert used == {f"#/channels/{name}" for name in document()["channels"]}


def answers_to(address: str) -> set[str]:
    """Return the messages that answer what is said on that subject."""
    if address in served_subjects():
        return {f"{address.rpartition('.')[2]}-answer", "refusal"}
    return {SUBJECTS.hello("{worker}"): {"hello-answer"}, SUBJECTS.probe("{worker}"): {"heartbeat"}}.get(address, set())


def test_every_request_is_answered() -> None:
    """Each request has the answer of its verb, and may be refused; a hello and a probe have one; all else has none."""
    for operation in document()["operations"].values():
        replies = list(references(operation.get("reply", {}).get("messages", [])))
        wanted = answers_to(resolved(operation["channel"]["$ref"])["address"])
        assert {reply.rpartition("/")[2] for reply in replies} == wanted
        assert all(
            resolved(reply) is document()["components"]["messages"][reply.rpartition("/")[2]] for reply in replies
        )


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_event_channel(event_type: str) -> None:
    """Each event's channel names the stream and carries that event's message alone."""
    name = event_type.replace(".", "-")
    channel = document()["channels"][name]
    assert channel["address"] == event_subject(event_type)
    assert channel["x-jetstream-stream"] == SETTINGS.events_stream
    assert list(references(channel["messages"])) == [f"#/components/messages/{name}"]


def test_every_schema_is_a_payload() -> None:
    """Each published schema is the payload of the message of its name, and each message but the probe has one."""
    messages = document()["components"]["messages"]
    assert {name: message["payload"]["$ref"] for name, message in messages.items() if "payload" in message} == {
        path.stem: f"messages/{path.name}" for path in schema_paths() if path.stem != HEADERS
    }
    assert {name for name, message in messages.items() if "payload" not in message} == {WITHOUT_PAYLOAD}


def test_every_event_has_the_headers_of_events() -> None:
    """By their schema, with golden examples, and so does nothing else."""
    event = document()["components"]["messageTraits"]["event"]
    assert event["headers"] == {"$ref": f"messages/{HEADERS}.json"}
    assert {Path(shown["headers"]["$ref"]).parent for shown in event["examples"]} == {Path("examples/good")}
    of_events = {
        name for name, one in document()["components"]["messages"].items() if "event" in str(one.get("traits", ""))
    }
    assert of_events == {event_type.replace(".", "-") for event_type in EVENT_TYPES}


@pytest.mark.parametrize("name", sorted(document()["components"]["messages"].keys() - {WITHOUT_PAYLOAD}))
def test_examples_are_good(name: str) -> None:
    """Each message shows golden examples of itself, which pass its schema."""
    shown = [Path(reference) for reference in references(document()["components"]["messages"][name]["examples"])]
    assert shown
    for path in shown:
        assert SCHEMAS / path in example_paths("good")
        assert message_of(path) == name
        validator(name).validate(read(SCHEMAS / path))
