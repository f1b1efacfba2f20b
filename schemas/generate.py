#!/usr/bin/env python3
"""Write schemas/messages/*.json from the types that the service itself encodes and decodes with.

    python schemas/generate.py            write them
    python schemas/generate.py --check    change nothing; exit 1 and name the files that differ

Stands outside of the package: nobody needs it at run time.
"""

import argparse
import inspect
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from liveness.answers import ReclaimAnswer, ReclaimRequest, Refusal, StatusAnswer, StatusRequest, SweepRequest, Swept
from liveness.eventdata import EVENT_TYPES, CloudEvent, EventHeaders
from liveness.facts import WhyAnswer, WhyRequest
from liveness.messages import Goodbye, Heartbeat, Hello, HelloAnswer, Superseded

FOLDER: Final = Path(__file__).resolve().parent / "messages"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

# Everything on the wire but the events, by the name of its file; of these, the headers. A probe is not among them, for
# it has no payload.
MESSAGES: Final[Mapping[str, type[msgspec.Struct]]] = {
    "heartbeat": Heartbeat,
    "goodbye": Goodbye,
    "hello": Hello,
    "hello-answer": HelloAnswer,
    "superseded": Superseded,
    "status-request": StatusRequest,
    "status-answer": StatusAnswer,
    "sweep-request": SweepRequest,
    "sweep-answer": Swept,
    "reclaim-request": ReclaimRequest,
    "reclaim-answer": ReclaimAnswer,
    "why-request": WhyRequest,
    "why-answer": WhyAnswer,
    "refusal": Refusal,
    "event-headers": EventHeaders,
}


def event_name(event_type: str) -> str:
    """Return the name of an event type's schema: `workflow.reclaimed` is in `workflow-reclaimed.json`."""
    return event_type.replace(".", "-")


def message_schema(name: str, message: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the schema of a message that is the encoding of one type."""
    return _document(name, message)


def event_schema(event_type: str) -> dict[str, Any]:
    """Return the schema of an event: the envelope, with the type's data in it and no other type's."""
    data = EVENT_TYPES[event_type]
    schema = _document(event_name(event_type), CloudEvent, data)
    schema["title"] = event_type
    schema["description"] = f"{schema['$defs'][data.__name__]['description']}\n\n{schema['description']}"
    schema["properties"]["type"] = {"const": event_type}
    schema["properties"]["data"] = {"$ref": f"#/$defs/{data.__name__}"}
    # A default to whoever decodes it with our types, to everybody else a MUST of CloudEvents.
    schema["required"] = ["specversion", *schema["required"]]
    return schema


def documents() -> dict[str, str]:
    """Return the text of every schema by the name of its file."""
    schemas = {name: message_schema(name, message) for name, message in MESSAGES.items()}
    schemas |= {event_name(event_type): event_schema(event_type) for event_type in EVENT_TYPES}
    return {
        f"{name}.json": json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }


def _document(name: str, message: type[msgspec.Struct], *parts: type[msgspec.Struct]) -> dict[str, Any]:
    _, definitions = msgspec.json.schema_components([message, *parts])
    for definition in definitions.values():
        # As it stands in the source, a docstring carries its indentation along.
        definition["description"] = inspect.cleandoc(definition["description"])
    # The message itself stands at the top, only its parts under $defs: a reader meets it first.
    schema = {"$schema": DIALECT, "$id": f"{name}.json", **definitions.pop(message.__name__)}
    return schema | {"$defs": definitions} if definitions else schema


def _differing(wanted: Mapping[str, str]) -> list[str]:
    present = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def _write(wanted: Mapping[str, str], names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        if name in wanted:
            (FOLDER / name).write_text(wanted[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()


def main() -> int:
    """Write what differs, or with --check only name it."""
    parser = argparse.ArgumentParser(description="Write schemas/messages/*.json from the message types.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 and name the files that differ")
    only_check = parser.parse_args().check
    wanted = documents()
    names = _differing(wanted)
    if not only_check:
        _write(wanted, names)
    for name in names:
        sys.stdout.write(f"schemas/messages/{name} {'differs from the types' if only_check else 'written'}\n")
    if names and only_check:
        sys.stdout.write("run: python schemas/generate.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
