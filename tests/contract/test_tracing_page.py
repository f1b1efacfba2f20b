"""docs/tracing.md names what the spans say, and nothing else."""

import ast
import re
from collections.abc import Iterator

from tests.contract.conftest import ROOT

PAGE = ROOT / "docs" / "tracing.md"
WHO_TELLS = ("traced", "relay", "finish", "sweep", "otel")
NAME = re.compile(r"(?:liveness|messaging|db)\.[a-z_.*]+")


def told(source: str) -> Iterator[str]:
    """Yield the names of attributes in a module; `*` for a part that is put in while it runs."""
    tree = ast.parse(source)
    loggers = {
        argument.value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "structlog.get_logger"
        for argument in call.args
        if isinstance(argument, ast.Constant)
    }
    parts: set[ast.AST] = set()
    for node in ast.walk(tree):
        text = None
        if isinstance(node, ast.JoinedStr):
            parts.update(node.values)
            text = "".join(str(one.value) if isinstance(one, ast.Constant) else "*" for one in node.values)
        elif isinstance(node, ast.Constant) and node not in parts and node.value not in loggers:
            text = str(node.value)
        if text is not None and NAME.fullmatch(text):
            yield text


def documented() -> set[str]:
    """Return the names that the page mentions; `*` for a part in angle brackets."""
    code = re.findall(r"`([^`\n]+)`", PAGE.read_text(encoding="utf-8"))
    return {
        name
        for name in (re.sub(r"<\w+>", "*", text) for text in code)
        if NAME.fullmatch(name) and name != "liveness.events"
    }


def test_the_page_names_what_spans_say() -> None:
    """By name, or by the pattern that it is of."""
    names = {name for module in WHO_TELLS for name in told((ROOT / "liveness" / f"{module}.py").read_text("utf-8"))}
    page = documented()
    patterns = [re.compile(re.escape(name).replace(r"\*", r"[a-z*]+")) for name in page if "*" in name]

    assert len(names) > 20
    assert {name for name in names - page if not any(pattern.fullmatch(name) for pattern in patterns)} == set()
    assert page - names == set()


def test_names_are_read_from_the_code() -> None:
    """Those put together while it runs, too, and no logger's."""
    source = "log = structlog.get_logger('liveness.a')\na = {'liveness.b': 1, f'liveness.c.{d}': 2, 'e': 3}\n"

    assert sorted(told(source)) == ["liveness.b", "liveness.c.*"]
