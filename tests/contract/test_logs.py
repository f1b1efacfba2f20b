"""The log: every event has a name of its own that stands in the code, and docs/logs.md says what it is."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from tests.contract.conftest import ROOT

PACKAGE = ROOT / "liveness"
TABLE = ROOT / "docs" / "logs.md"
SNAKE = re.compile(r"[a-z]+(_[a-z0-9]+)*")
LEVELS = {10: "debug", 20: "info", 30: "warning", 40: "error"}
# Their value is how it is logged, and not a field of it.
NO_FIELDS = {"exc_info"}
# A worker, kinds of work and their ids are called the same in every line, so that one question finds all of them.
OTHERWISE = {"name", "worker_name", "worker_id", "workflow", "workflow_id", "task", "task_id", "work_id"}


class Call(msgspec.Struct):
    """A line of code that logs. `fields`: those that it names; `more`: it may have others besides."""

    where: str
    events: list[str]
    levels: set[str]
    fields: set[str]
    more: bool


def calls_in(source: str, where: str) -> Iterator[Call]:
    """Yield what a module logs. Raises AssertionError for an event whose name does not stand there."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    if not any(
        isinstance(node, ast.Assign) and ast.unparse(node).startswith("log = structlog.get_logger(")
        for node in tree.body
    ):
        assert "structlog.get_logger" not in source, f"{where}: its logger has another name than log"
        return
    for call in ast.walk(tree):
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=method)):
                pass
            case _:
                continue
        event = call.args[1 if method == "log" else 0]
        levels = {"exception": ["error"]}.get(method, [method])
        if method == "log":
            levels = [LEVELS[level] for level in values(call.args[0])]
        place = f"{where}:{call.lineno}"
        yield Call(
            place,
            names(event, tree, functions, place),
            set(levels),
            {field.arg for field in call.keywords if field.arg is not None} - NO_FIELDS,
            any(field.arg is None for field in call.keywords),
        )


def values(node: ast.expr) -> list[Any]:
    """Return the constants that an expression may be, none if it may be anything."""
    match node:
        case ast.Constant(value=value):
            return [value]
        case ast.IfExp(body=one, orelse=other):
            return [*values(one), *values(other)] if values(one) and values(other) else []
    return []


def names(
    event: ast.expr, tree: ast.Module, functions: list[ast.FunctionDef | ast.AsyncFunctionDef], place: str
) -> list[str]:
    """Return what an event may be called: what stands there, or what its function is given wherever it is called."""
    found = values(event)
    if isinstance(event, ast.Name):
        (inside,) = [one for one in functions if one.lineno <= int(place.rpartition(":")[2]) <= (one.end_lineno or 0)][
            -1:
        ]
        arguments = [argument.arg for argument in inside.args.args if argument.arg != "self"]
        assert event.id in arguments, f"{place}: the event's name is made up while it runs"
        for call in ast.walk(tree):
            match call:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="self"), attr=inside.name)):
                    given = values(call.args[arguments.index(event.id)])
                    assert given, f"{place}: called with an event's name that is made up while it runs"
                    found += given
    assert found, f"{place}: the event's name is made up while it runs"
    return [str(name) for name in found]


def all_calls() -> list[Call]:
    """Return everything that the service logs. The worker's side uses `logging`, as its programs do."""
    return [
        call
        for path in sorted(PACKAGE.rglob("*.py"))
        for call in calls_in(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT)))
    ]


def documented() -> dict[str, tuple[set[str], set[str], str]]:
    """Return levels, fields and explanation of each event in docs/logs.md."""
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| (.*?) \| (.*) \|$", TABLE.read_text(encoding="utf-8"), re.MULTILINE)
    found = {
        event: (set(levels.split(", ")), set(re.findall(r"`(\w+)`", fields)), text)
        for event, levels, fields, text in rows
    }
    assert [event for event, *_ in rows] == sorted(found)
    return found


def test_every_event_has_a_name_in_snake_case() -> None:
    """That stands in the code: whoever reads a log finds where it comes from."""
    logged = {event for call in all_calls() for event in call.events}

    assert len(logged) > 50
    assert [event for event in logged if not SNAKE.fullmatch(event)] == []


def test_every_event_is_documented_and_no_other() -> None:
    """By name, levels and fields, with what it says."""
    levels: defaultdict[str, set[str]] = defaultdict(set)
    fields: defaultdict[str, set[str]] = defaultdict(set)
    more: set[str] = set()
    for call in all_calls():
        for event in call.events:
            levels[event] |= call.levels
            fields[event] |= call.fields
            more |= {event} if call.more else set()
    table = documented()

    assert table.keys() == levels.keys()
    for event, (of_levels, of_fields, text) in table.items():
        assert of_levels == levels[event], event
        assert of_fields > fields[event] if event in more else of_fields == fields[event], event
        assert text.strip()


def test_workers_and_work_are_called_the_same_in_every_line() -> None:
    """`worker`, `work` and `id`: one question to the log finds all that happened to one."""
    assert [(call.where, call.fields & OTHERWISE) for call in all_calls() if call.fields & OTHERWISE] == []


@pytest.mark.parametrize(
    "line",
    ["log.info(f'{kind}_seen')", "log.info(kinds[0])", "log.info('a' if kind else kind)", "log.info(kind)"],
)
def test_a_name_that_is_made_up_is_found(line: str) -> None:
    """So that no event goes without its row in the table."""
    source = f"log = structlog.get_logger('x')\nclass A:\n    def act(self, one):\n        {line}\n"

    with pytest.raises(AssertionError, match="made up"):
        list(calls_in(source, "a.py"))


def test_a_name_that_is_handed_on_is_known() -> None:
    """Of a method that logs for others."""
    source = (
        "log = structlog.get_logger('x')\nclass A:\n"
        "    def tell(self, kind, why):\n        log.log(30 if why else 20, kind)\n"
        "    def act(self):\n        self.tell('stale', '')\n        self.tell('b' if self.c else 'd', '')\n"
    )

    (call,) = calls_in(source, "a.py")
    assert (call.events, call.levels) == (["stale", "b", "d"], {"warning", "info"})
