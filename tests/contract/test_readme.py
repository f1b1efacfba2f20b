"""What the README says about settings and code is true."""

import re
from pathlib import Path

import msgspec
import pytest

import liveness
from liveness.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_settings_table_is_complete_and_right() -> None:
    """Every setting in its order, with its default and its description."""
    properties = msgspec.json.schema(Settings)["$defs"]["Settings"]["properties"]
    rows = []
    for field in msgspec.structs.fields(Settings):
        value = field.default
        shown = f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else value
        cell = "(none)" if shown == "" else f"`{shown}`"
        rows.append(f"| `{field.name}` | {cell} | {properties[field.name]['description']} |")

    table = README.partition("| setting | default | |\n| --- | --- | --- |\n")[2].partition("\n\n")[0]

    assert table.splitlines() == rows


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_examples_are_python_of_at_most_twelve_lines(code: str) -> None:
    """They compile, and name only what the package has."""
    compile(code, "README.md", "exec")

    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    for name in re.findall(r"liveness\.(\w+)", code):
        assert hasattr(liveness, name)
