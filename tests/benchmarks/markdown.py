"""A run as a page of Markdown: which machine, how to read it, and a table for each benchmark.

All prose stands elsewhere: how to read it in `report`, how each is measured in its module, how a peer is run in its.
"""

import inspect
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from tests.benchmarks import report
from tests.benchmarks.report import TO_THE_RIGHT, Section, filled

WIDTH: Final = 120
_PEERS: Final = "tests.benchmarks.peers_"
# How a module is called as a program is of no interest to who reads figures.
_AS_A_PROGRAM: Final = "As a program"


class Head(msgspec.Struct, frozen=True):
    """When this ran, where, and by which command."""

    began: datetime
    command: str
    facts: Mapping[str, str]


def as_markdown(head: Head, sections: Sequence[Section], pictures: str | None = None) -> str:
    """Return the page. `pictures` is the folder of the drawn curves as a link from it, if there is one."""
    parts = ["# Benchmarks", *_head(head), _body(inspect.getdoc(report) or "")]
    for section in sorted(sections, key=lambda section: section.number):
        parts += [f"## {section.number}. {section.question}", section.explanation, _table(section)]
        if pictures is not None:
            parts += [f"![{curve.title}]({pictures}/{curve.name}.svg)" for curve in section.outcome.curves]
    if peers := _peers():
        parts += ["## The peers", *peers]
    return "\n\n".join(filter(None, parts)) + "\n"


def link_to(folder: Path, page: Path) -> str:
    """Return the link to `folder` from the file `page`, wherever both of them lie."""
    return Path(os.path.relpath(folder, page.parent)).as_posix()


def _head(head: Head) -> list[str]:
    facts = ", ".join(f"{name} {value}" for name, value in head.facts.items())
    text = f"Measured on {head.began:%Y-%m-%d, %H:%M} UTC by `{head.command}`, on this machine: {facts}."
    return [textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)]


def _table(section: Section) -> str:
    titles, rows = filled(section.outcome.rows)
    rule = ["--:" if title in TO_THE_RIGHT else "---" for title in titles]
    lines = [titles, rule, *(list(map(_escaped, row)) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else ""


def _escaped(text: str) -> str:
    return "**NO**" if text == "NO" else text.replace("|", "\\|").replace("\n", " ")


def _peers() -> list[str]:
    """Return what those peers say of themselves that were measured: whoever was is imported."""
    modules = [module for name, module in sorted(sys.modules.items()) if name.startswith(_PEERS)]
    paragraphs = [paragraph for module in modules for paragraph in (inspect.getdoc(module) or "").split("\n\n")]
    return [paragraph for paragraph in paragraphs if not paragraph.startswith(_AS_A_PROGRAM)]


def _body(text: str) -> str:
    return text.partition("\n")[2].strip()
