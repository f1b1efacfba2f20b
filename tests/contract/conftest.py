"""What is published: the schemas and the golden messages, as a reader from outside finds them."""

import json
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"


def schema_paths() -> list[Path]:
    """Return the files of the published message schemas."""
    return sorted((SCHEMAS / "messages").glob("*.json"))


def example_paths(kind: str) -> list[Path]:
    """Return the files of the golden messages, `good` or `bad`."""
    return sorted((SCHEMAS / "examples" / kind).glob("*.json"))


def message_of(example: Path) -> str:
    """Return the message that an example is of: `heartbeat` for `heartbeat--empty-object.json`."""
    return example.stem.partition("--")[0]


def validator(message: str) -> Draft202012Validator:
    """Return what judges by the published schema of a message."""
    return Draft202012Validator(read(SCHEMAS / "messages" / f"{message}.json"))


def read(path: Path) -> Any:
    """Return the JSON in a file."""
    return json.loads(path.read_text(encoding="utf-8"))


def name_of(path: Path) -> str:
    """Return what a test on that file is called."""
    return path.stem
