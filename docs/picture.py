#!/usr/bin/env python3
"""Draw docs/architecture.svg, and the table of docs/architecture.md, from what the modules import.

    python docs/picture.py            write them
    python docs/picture.py --check    change nothing; exit 1 and name what differs

Every module is in one box. An arrow leads from one box to another if something in the first imports something in the
second; one that follows from others (A to B to C says A to C) is left out. That two boxes import each other is an
error.
"""

import argparse
import html
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import grimp

FOLDER: Final = Path(__file__).resolve().parent
PICTURE: Final = FOLDER / "architecture.svg"
PAGE: Final = FOLDER / "architecture.md"
TABLE: Final = re.compile(r"(?<=<!-- boxes: written by docs/picture.py -->\n\n).*?(?=\n\n)", re.DOTALL)

WIDTH: Final = 1120
ROW: Final = 92
HEIGHT: Final = 50
TOP: Final = 14
# The colours: what decides, what acts, what talks to the outside, what is for people, and what all others need.
PURE, DUTY, OUTSIDE, PEOPLE, PLAIN = "#dcefdc", "#fdf0d0", "#dbe8f8", "#eee4f3", "#eeeeee"


class Box(NamedTuple):
    """Some modules, and where they are drawn."""

    says: str
    modules: str
    x: int
    row: int
    colour: str
    width: int = 132


BOXES: Final[Mapping[str, Box]] = {
    "commands": Box(
        "what an operator enters; the demonstration", "__main__ cli demo checks", 560, 0, PEOPLE
    ),
    "testing": Box(
        "a NATS, a service and a clock that are played, for the tests of a worker", "testing", 860, 0, PEOPLE
    ),
    "service": Box(
        "puts the parts together, answers commands, and says how it is",
        "service assembly api metrics page snapshot reclaim why health", 310, 1, PEOPLE,
    ),
    "way in": Box(
        "what is heard: it renews, begins, ends and doubts",
        "intake renewals greetings grants doubting comparing advisories bounds", 10, 2, DUTY,
    ),
    "news": Box("publishes what was committed, and nothing else", "relay backlog", 160, 2, DUTY),
    "way out": Box(
        "a lapse is offered to Postgres until there is a verdict",
        "expiry finish refused pausing forgetting",
        310,
        2,
        DUTY,
    ),
    "sweep and start": Box(
        "what memory does not know: the dead of before, the lives of before, who acts",
        "sweep checkpoint restore follow leadership listening rounds", 460, 2, DUTY,
    ),
    "face": Box(
        "what others see of the process: HTTP, log, systemd, traces",
        "http connections door logs systemd tracing otel trust", 610, 2, DUTY,
    ),
    "bus": Box("the service's side of NATS", "bus eventstream publishing", 60, 3, OUTSIDE),
    "store": Box("Postgres: all statements, each in a file", "store", 310, 3, OUTSIDE),
    "worker's side": Box("what a worker imports", "client", 830, 3, OUTSIDE),
    "embedded": Box("a NATS server and a Postgres for trying out", "embedded", 980, 3, OUTSIDE),
    "judgement": Box(
        "who lives, whether silence may be believed, what counts against whom: no I/O, no clock",
        "hearing reach leases lease lines incarnations beginnings formers group verdicts storms suspects cases probes"
        " reports budgets tallies traced admission", 230, 4, PURE,
    ),
    "connection": Box(
        "one connection to NATS, hardened, for both sides", "link login refusals wire", 650, 4, OUTSIDE
    ),
    "story": Box(
        "what is known, as a person reads it",
        "explanations overview evidence facts answers findings limits rights", 430, 4, PURE,
    ),
    "words": Box(
        "settings, messages, subjects, tables: what all others speak of, and small tools",
        "settings http_settings postgres_settings nats_settings messages eventdata subjects tables parts needs work"
        " share access addresses secret_files errors measures spans turns wakes figures shown bounded apart"
        " certificates",
        230, 5, PLAIN, 640,
    ),
}  # fmt: skip

# Where arrows end that would lie one upon the other, or run through a box, if they did so in its middle.
ENDS: Final = {
    ("bus", "story"): 470, ("face", "story"): 520, ("judgement", "words"): 296, ("story", "words"): 496,
    ("connection", "words"): 716, ("embedded", "words"): 840,
}  # fmt: skip


class PictureError(Exception):
    """The modules do not fit into the boxes; the text says what to do."""


def imports() -> dict[str, set[str]]:
    """Return which boxes each box imports from. Raises PictureError unless each module has a box, and each is there."""
    box_of = {module: name for name, box in BOXES.items() for module in box.modules.split()}
    graph = grimp.build_graph("liveness", cache_dir=None)
    top = {module: module.split(".")[1] for module in graph.modules if "." in module}
    if unplaced := sorted(set(top.values()) - box_of.keys()):
        raise PictureError(f"docs/picture.py has no box for {', '.join(unplaced)}")
    if gone := sorted(box_of.keys() - set(top.values())):
        raise PictureError(f"docs/picture.py has boxes for modules that there are none of: {', '.join(gone)}")
    found = defaultdict[str, set[str]](set)
    for module, own in top.items():
        for imported in graph.find_modules_directly_imported_by(module):
            if imported in top and box_of[top[imported]] != box_of[own]:
                found[box_of[own]].add(box_of[top[imported]])
    return found


def arrows(found: Mapping[str, set[str]]) -> list[tuple[str, str]]:
    """Return those that follow from no others, in the order of the boxes. Raises PictureError for a circle."""
    reached = {name: _reached(name, found) for name in BOXES}
    if circle := sorted(name for name in BOXES if name in reached[name]):
        raise PictureError(f"these import each other: {', '.join(circle)}")
    return [
        (name, other)
        for name in BOXES
        for other in BOXES
        if other in found.get(name, ()) and not any(other in reached[one] for one in found[name])
    ]


def _reached(name: str, found: Mapping[str, set[str]]) -> set[str]:
    seen, waiting = set[str](), [name]
    while waiting:
        new = found.get(waiting.pop(), set()) - seen
        seen |= new
        waiting += new
    return seen


def picture() -> str:
    """Return the drawing."""
    height = TOP * 2 + ROW * max(box.row for box in BOXES.values()) + HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif">',
        "<title>Which part of liveness imports which</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">',
        '<path d="M0 0 8 4 0 8z" fill="#444"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        *_drawn_arrows(arrows(imports())),
        *_drawn_boxes(),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _drawn_arrows(found: list[tuple[str, str]]) -> Iterator[str]:
    for pair in found:
        begin, end = BOXES[pair[0]], BOXES[pair[1]]
        x1, x2 = begin.x + begin.width // 2, ENDS.get(pair, end.x + end.width // 2)
        y1, y2 = TOP + begin.row * ROW + HEIGHT, TOP + end.row * ROW
        if through := _through(x1, y1, x2, y2):
            raise PictureError(
                f"the arrow from {' to '.join(pair)} runs through {through}: move a box in docs/picture.py"
            )
        yield (
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="#444" marker-end="url(#tip)">'
            f"<title>{html.escape(' imports '.join(pair))}</title></line>"
        )


def _through(x1: float, y1: float, x2: float, y2: float) -> str | None:
    """Return a box that a line runs through, or None; also one that leads upwards runs through its own."""
    for step in range(1, 100):
        x, y = x1 + (x2 - x1) * step / 100, y1 + (y2 - y1) * step / 100
        for name, box in BOXES.items():
            top = TOP + box.row * ROW
            if box.x < x < box.x + box.width and top < y < top + HEIGHT:
                return name
    return None


def _drawn_boxes() -> Iterator[str]:
    for name, box in BOXES.items():
        y = TOP + box.row * ROW
        where = f'x="{box.x}" y="{y}" width="{box.width}" height="{HEIGHT}"'
        yield f'<rect {where} rx="6" fill="{box.colour}" stroke="#444"/>'
        middle = f'x="{box.x + box.width // 2}" y="{y + HEIGHT // 2 + 5}" text-anchor="middle"'
        yield f'<text {middle} font-size="15">{html.escape(name)}</text>'


def table() -> str:
    """Return the table of the boxes."""
    rows = [
        f"| {name} | {box.says} | {', '.join(f'`{module}`' for module in box.modules.split())} |"
        for name, box in BOXES.items()
    ]
    return "\n".join(["| box | | modules |", "| --- | --- | --- |", *rows])


def main() -> int:
    """Write what differs, or with --check only name it."""
    parser = argparse.ArgumentParser(description="Draw docs/architecture.svg from what the modules import.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 and name what differs")
    only_check = parser.parse_args().check
    page = PAGE.read_text(encoding="utf-8")
    try:
        wanted = {PICTURE: picture(), PAGE: TABLE.sub(lambda _: table(), page)}
    except PictureError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    differing = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in differing:
        sys.stdout.write(f"docs/{path.name} {'differs from the imports' if only_check else 'written'}\n")
        if not only_check:
            path.write_text(wanted[path], encoding="utf-8")
    if differing and only_check:
        sys.stdout.write("run: python docs/picture.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
