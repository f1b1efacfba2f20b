"""The published schemas are those of the types, and are what they claim to be."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from liveness.eventdata import EVENT_TYPES
from tests.contract.conftest import SCHEMAS, example_paths, message_of, name_of, read, schema_paths


def generate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the generator that lies in `folder`."""
    return subprocess.run(
        [sys.executable, folder / "generate.py", *arguments], capture_output=True, text=True, check=False
    )


def test_schemas_are_generated() -> None:
    """The committed schemas are what the generator makes of the types."""
    checked = generate(SCHEMAS, "--check")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_drift_is_named(tmp_path: Path) -> None:
    """A file that differs, one that is missing and one too many are each named, and repaired without --check."""
    shutil.copy(SCHEMAS / "generate.py", tmp_path)
    shutil.copytree(SCHEMAS / "messages", tmp_path / "messages")
    (tmp_path / "messages" / "heartbeat.json").write_text("{}\n")
    (tmp_path / "messages" / "goodbye.json").unlink()
    (tmp_path / "messages" / "farewell.json").write_text("{}\n")

    checked = generate(tmp_path, "--check")
    assert checked.returncode == 1
    for name in ("heartbeat", "goodbye", "farewell"):
        assert f"schemas/messages/{name}.json differs" in checked.stdout
    assert "superseded.json" not in checked.stdout

    assert generate(tmp_path).returncode == 0
    assert generate(tmp_path, "--check").returncode == 0


@pytest.mark.parametrize("path", schema_paths(), ids=name_of)
def test_schema_is_valid(path: Path) -> None:
    """Each schema obeys the dialect that it names, and says what it is."""
    schema = read(path)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == path.name
    assert schema["title"]
    assert schema["description"]


@pytest.mark.parametrize("path", schema_paths(), ids=name_of)
def test_schema_lets_unknown_fields_pass(path: Path) -> None:
    """No schema forbids fields that a later version adds."""
    assert '"additionalProperties": false' not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_event_type_has_a_schema(event_type: str) -> None:
    """Each event type is published under its own name, and its schema takes no other type."""
    schema = read(SCHEMAS / "messages" / f"{event_type.replace('.', '-')}.json")
    assert schema["title"] == event_type
    assert schema["properties"]["type"] == {"const": event_type}


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_every_message_has_examples(kind: str) -> None:
    """For each message there are golden ones of both kinds, and none is of a message that does not exist."""
    assert {message_of(path) for path in example_paths(kind)} == {path.stem for path in schema_paths()}
