"""All benchmarks: `python -m tests.benchmarks [NAME ...] [--quick] [--json FILE] [--plot DIR]`."""

import asyncio
import importlib
import sys
import time
from pathlib import Path
from typing import Final, cast

import click
from rich.console import Console

from tests.benchmarks.figures import Benchmark, Outcome, Plan
from tests.benchmarks.report import as_json, as_table, machine

WIDTH: Final = 160
# In the order of their numbers.
NAMES: Final = (
    "cpu", "rate", "lateness", "detection", "disaster", "events", "memory", "growth", "database", "start", "sweep",
)  # fmt: skip


def benchmark(name: str) -> Benchmark:
    """Return the benchmark of that name."""
    return cast("Benchmark", importlib.import_module(f"tests.benchmarks.{name}"))


async def perform(names: tuple[str, ...], plan: Plan) -> dict[str, Outcome]:
    """Run one after the other: they must not take each other's time."""
    outcomes = {}
    for name in names:
        began = time.monotonic()
        plan.say(f"{name}: {(benchmark(name).__doc__ or '').splitlines()[0]}")
        outcomes[name] = await benchmark(name).measure(plan)
        plan.say(f"{name}: {time.monotonic() - began:.0f} s")
    return outcomes


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--quick", is_flag=True, help="Rougher figures, within five minutes.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures there.")
@click.option("--plot", "plot_folder", type=click.Path(file_okay=False, path_type=Path), help="Draw the curves there.")
def main(names: tuple[str, ...], *, quick: bool, json_file: Path | None, plot_folder: Path | None) -> None:
    """Measure ourselves beside others, on this machine, in one run. Without NAMES: everything."""
    # What is no terminal has no width, and a table of 80 columns is not to be read.
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    progress = Console(stderr=True)
    began = time.monotonic()
    plan = Plan(quick, lambda text: progress.print(f"[dim]{time.monotonic() - began:5.0f} s  {text}[/dim]"))
    outcomes = asyncio.run(perform(names or NAMES, plan))
    facts = machine()
    console.print(as_table([row for outcome in outcomes.values() for row in outcome.rows]))
    console.print(
        f"{', '.join(f'{name} {value}' for name, value in facts.items())}; medians; spread: (most - least) / median"
    )
    if json_file is not None:
        json_file.write_bytes(as_json(outcomes, facts))
    if plot_folder is not None:
        from tests.benchmarks.plots import draw  # noqa: PLC0415 - who draws nothing needs no library for it

        plot_folder.mkdir(parents=True, exist_ok=True)
        for outcome in outcomes.values():
            for curve in outcome.curves:
                draw(curve, plot_folder / f"{curve.name}.svg")
    missed = [row for outcome in outcomes.values() for row in outcome.rows if row.reached is False]
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
