"""Draws the curves of the benchmarks."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt

from tests.benchmarks.figures import Curve

# No screen is needed, and the same figures give the same file.
mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "liveness"


def draw(curve: Curve, file: Path) -> None:
    """Write `curve` to `file` as SVG."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for name, points in curve.lines.items():
        axes.plot([x for x, _ in points], [y for _, y in points], label=name, marker="." if len(points) < 50 else None)
    axes.set(title=curve.title, xlabel=curve.x, ylabel=curve.y)
    axes.set_xscale("log" if curve.log_x else "linear")
    axes.set_yscale("log" if curve.log_y else "linear")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
