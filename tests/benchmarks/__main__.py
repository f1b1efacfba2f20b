"""All benchmarks: `python -m tests.benchmarks [NAME ...] [--quick] [--json FILE] [--markdown FILE] [--plot DIR]`."""

import asyncio
import importlib
import inspect
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

import click
from rich.console import Console
from rich.markup import escape

from tests.benchmarks.figures import Benchmark, Plan
from tests.benchmarks.markdown import Head, as_markdown, link_to
from tests.benchmarks.report import Section, as_json, as_table, machine

WIDTH: Final = 180
# In the order of their numbers.
NAMES: Final = (
    "cpu", "rate", "lateness", "detection", "disaster", "events", "memory", "growth", "database", "start", "sweep",
    "shards",
)  # fmt: skip


def benchmark(name: str) -> Benchmark:
    """Return the benchmark of that name."""
    return cast("Benchmark", importlib.import_module(f"tests.benchmarks.{name}"))


async def perform(names: Sequence[str], plan: Plan, show: Callable[[Section], None]) -> list[Section]:
    """Run one after the other: they must not take each other's time. Each is shown as soon as it is there."""
    sections = []
    for name in names:
        began = time.monotonic()
        text = inspect.getdoc(benchmark(name)) or name
        plan.say(f"{name}: {text.splitlines()[0]}")
        sections.append(Section(name, text, await benchmark(name).measure(plan)))
        plan.say(f"{name}: {time.monotonic() - began:.0f} s")
        show(sections[-1])
    return sections


def file_option(name: str, text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option that names a file."""
    return click.option(f"--{name}", f"{name}_file", type=click.Path(dir_okay=False, path_type=Path), help=text)


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--quick", is_flag=True, help="Rougher figures, within five minutes.")
@file_option("json", "Write all figures there.")
@file_option("markdown", "Write the tables there, and how to read them.")
@click.option("--plot", "plot_folder", type=click.Path(file_okay=False, path_type=Path), help="Draw the curves there.")
def main(
    names: tuple[str, ...], *, quick: bool, json_file: Path | None, markdown_file: Path | None, plot_folder: Path | None
) -> None:
    """Measure ourselves beside others, on this machine, in one run. Without NAMES: everything."""
    # What is no terminal has no width, and a table of 80 columns is not to be read.
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    progress = Console(stderr=True, soft_wrap=True)
    for file in filter(None, (json_file, markdown_file)):
        # Not an hour later.
        file.parent.mkdir(parents=True, exist_ok=True)
    clock, began = time.monotonic(), datetime.now(UTC)
    plan = Plan(quick, lambda text: progress.print(f"[dim]{time.monotonic() - clock:5.0f} s  {escape(text)}[/dim]"))
    sections = asyncio.run(perform(names or NAMES, plan, lambda section: console.print(as_table(section))))
    facts = machine()
    console.print(
        f"{', '.join(f'{name} {value}' for name, value in facts.items())}; medians; ±: (most - least) / median"
    )
    if json_file is not None:
        json_file.write_bytes(as_json(sections, facts))
    if plot_folder is not None:
        from tests.benchmarks.plots import draw  # noqa: PLC0415 - who draws nothing needs no library for it

        plot_folder.mkdir(parents=True, exist_ok=True)
        for curve in (curve for section in sections for curve in section.outcome.curves):
            draw(curve, plot_folder / f"{curve.name}.svg")
    if markdown_file is not None:
        # Where it writes to changes no figure, and may be nobody else's path.
        command = " ".join(["python -m tests.benchmarks", *names, *(["--quick"] if quick else [])])
        pictures = None if plot_folder is None else link_to(plot_folder, markdown_file)
        markdown_file.write_text(as_markdown(Head(began, command, facts), sections, pictures), encoding="utf-8")
    missed = [row for section in sections for row in section.outcome.rows if row.reached is False]
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
