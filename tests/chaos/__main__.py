"""The long chaos run: `python -m tests.chaos --minutes 20 --seed 7`. Exit code 0 only when there was no violation."""

import argparse
import asyncio
import random
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Summary, run


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _until_told(folder: Path, seconds: float, seed: int, shards: int) -> Summary:
    """Run it; SIGTERM breaks it off, and what it has started is stopped all the same."""
    running = asyncio.ensure_future(run(folder, seconds, seed, say, shards, coda=not shards))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
    return await running


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long the faults go on (1)")
    parser.add_argument("--seed", type=int, help="of the faults; one at random")
    parser.add_argument("--folder", type=Path, help="keep everything in this new folder, logs and diaries too")
    parser.add_argument("--shards", type=int, default=0, help="divide the workers into so many, with two replicas each")
    asked = parser.parse_args()
    seed = random.SystemRandom().getrandbits(16) if asked.seed is None else asked.seed
    say(f"seed {seed}")
    with tempfile.TemporaryDirectory(prefix="liveness-chaos-") as temporary:
        summary = asyncio.run(_until_told(asked.folder or Path(temporary), asked.minutes * 60, seed, asked.shards))
    for line in summary.lines():
        say(line)
    return 1 if summary.violations else 0


if __name__ == "__main__":
    sys.exit(main())
