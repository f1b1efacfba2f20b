"""The chaos run, short. The long form is `python -m tests.chaos --minutes 20`."""

import sys
from pathlib import Path

from tests.chaos.run import run

SECONDS = 10.0
SEED = 20


async def test_chaos(tmp_path: Path) -> None:
    """After random faults from one seed and a quiet, the checker finds no violation."""
    lines: list[str] = []
    summary = await run(tmp_path, SECONDS, SEED, lines.append)
    sys.stdout.write("\n".join([*lines, *summary.lines(), ""]))
    assert sum(summary.faults.values()) > 3
    assert not summary.violations, "\n".join(map(str, summary.violations))
