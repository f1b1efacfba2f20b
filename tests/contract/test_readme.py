"""What the README and the pages behind it say about settings, code, messages and each other is true."""

import json
import re
from pathlib import Path

import msgspec
import pytest

import liveness
import liveness.testing
from liveness.checks import CHECKS
from liveness.eventdata import EVENT_TYPES
from liveness.messages import Heartbeat, decode_hello
from liveness.settings import NAMES, Settings
from tests.contract.conftest import example_paths, read

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
WORKERS = (ROOT / "docs" / "workers.md").read_text(encoding="utf-8")
PAGES = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "schemas" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]


def test_the_page_of_the_checks_is_complete_and_in_their_order() -> None:
    """That of two findings of equal weight comes first which stands higher there."""
    page = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")

    table = page.partition("| check | finds |\n| --- | --- |\n")[2].partition("\n\n")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == ["reach", *(look.__name__ for look, _ in CHECKS)]


def test_the_settings_table_is_complete_and_right() -> None:
    """Every setting in its order, with its default and its description."""
    properties = msgspec.json.schema(Settings)["$defs"]["Settings"]["properties"]
    rows = []
    for field in msgspec.structs.fields(Settings):
        if field.name not in NAMES:
            continue
        value = field.default
        shown = (
            f"{value:.12g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else value
        )
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every link within the tree leads to a file or folder."""
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


def test_every_page_can_be_found_on_the_first_one() -> None:
    """What stands in the hidden lists of the site alone is nowhere for whoever reads it in the repository."""
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#:]+)", page)}
    of_others = {"docs/index.md"}

    assert sorted(str(path.relative_to(ROOT)) for path in PAGES if path not in linked) == sorted(of_others)


def test_the_event_types_are_all() -> None:
    """The README names exactly the types that are published."""
    said = README.partition("CloudEvents 1.0 on exactly")[2].partition("the stream")[0]

    assert set(re.findall(r"`([^`]+)`", said)) == set(EVENT_TYPES)


def test_the_hello_is_one() -> None:
    """What the README shows of a hello is what the service takes."""
    (payload,) = re.findall(r"nats request liveness\.hello\.w1 '(.*)'", README)

    assert decode_hello(payload.encode()).incarnation


def test_the_messages_shown_to_workers_are_golden() -> None:
    """Every message on the workers' page is one of the examples, which pass their schemas."""
    shown = [json.loads(text) for text in re.findall(r"```json\n(.*?)```", WORKERS, re.DOTALL)]
    golden = [read(path) for path in example_paths("good")]

    assert len(shown) == 5
    assert all(message in golden for message in shown)


def test_the_table_of_a_heartbeat_is_complete() -> None:
    """Every field that one may have, in its order."""
    table = README.partition("| field | says |\n| --- | --- |\n")[2].partition("\n\n")[0]

    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(Heartbeat.__struct_fields__)


def test_the_table_of_subjects_is_that_of_the_page() -> None:
    """README and page name the same ones, and who says what on them."""
    rows = [
        re.findall(r"^\| (`liveness\.\w+\.<worker>` \| [^|]+) \|", page, re.MULTILINE) for page in (README, WORKERS)
    ]

    assert len(rows[0]) == 5
    assert rows[0] == rows[1]


@pytest.mark.parametrize(
    "example", ["shell/work.sh", "node/worker.mjs", "python-asyncpg/worker.py", "python-sync/sync_worker.py"]
)
def test_the_examples_claim_and_finish_as_the_page_says(example: str) -> None:
    """By the same statements, but for how a value is named in them."""
    text = _bare((ROOT / "examples" / example).read_text(encoding="utf-8"))
    statements = [_bare(statement) for statement in re.findall(r"```sql\n--[^\n]*\n(.*?)```", WORKERS, re.DOTALL)]

    assert len(statements) == 2
    for statement in statements:
        assert statement in text


def _bare(text: str) -> str:
    return " ".join(re.sub(r":'\w+'|\$\d|%s", "?", text).split())
