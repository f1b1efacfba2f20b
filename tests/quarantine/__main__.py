"""How many innocents are set aside before the killer is, by the number of workers that claim.

python -m tests.quarantine                    print the table of docs/quarantine.md
python -m tests.quarantine --plot FILE.svg    and draw it
"""

import argparse
from pathlib import Path

from tests.quarantine.experiment import RULES, WORKERS, figures

# Enough that the last digit shown stays what it is: a standard error of 0.003 for what happens in one trial of ten.
TRIALS = 10_000


def table(trials: int = TRIALS) -> str:
    """Return the table in Markdown."""
    heads = (
        "workers",
        "the killer's worker claims",
        "innocents set aside, at its budget",
        "by these rules",
        "deaths, at its budget",
        "by these rules",
    )
    lines = [f"| {' | '.join(heads)} |", "|---:|---|---:|---:|---:|---:|"]
    for refilled in (False, True):
        for workers in WORKERS:
            plain, ours = (figures(rule, workers, trials=trials, refilled=refilled) for rule in RULES.values())
            claims = "new work, too" if refilled else "only what went back"
            lines.append(
                f"| {workers} | {claims} | {plain.innocents:.4f} | {ours.innocents:.4f} "
                f"| {plain.deaths:.2f} | {ours.deaths:.2f} |"
            )
    return "\n".join(lines)


def draw(file: Path) -> None:
    """Draw the innocents that are set aside, by the number of workers, as SVG."""
    # Of the extra `bench`.
    from tests.benchmarks.figures import Curve  # noqa: PLC0415
    from tests.benchmarks.plots import draw as draw_curve  # noqa: PLC0415

    lines = {
        name: [(workers, figures(rule, workers, trials=TRIALS, refilled=False).innocents) for workers in WORKERS]
        for name, rule in RULES.items()
    }
    curve = Curve(
        name="quarantine",
        title="One killer among ten, budget 3: innocents set aside",
        x="workers that claim at random",
        y="innocents, mean of 10,000 trials",
        lines=lines,
        log_x=True,
    )
    draw_curve(curve, file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.quarantine", description=__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    asked = parser.parse_args()
    print(table())  # noqa: T201 - what a command prints
    if asked.plot is not None:
        draw(asked.plot)
