"""The full form of the outages: `python -m tests.outages`, or `python -m tests.outages --replicas 20`."""

import argparse
import asyncio
import statistics
import sys
import tempfile
from pathlib import Path

from tests.outages.outages import OUTAGES, SLOW_CONSUMER, Outcome, pooled, suffer
from tests.outages.replicas import LAPSES, killed, paused, take_over
from tests.outages.stage import Stage
from tests.pgbouncer import find_pgbouncer

# What the issue names; Postgres is read-only for half as long as others are away.
SECONDS = 10.0


def say(line: str = "") -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def row(outcome: Outcome) -> str:
    """One line of the table."""
    return (
        f"{outcome.outage:24} {outcome.lasted:8.2f} {outcome.before_back:14.2f} {outcome.during_back:14.2f}"
        f" {outcome.pieces:7} {len(outcome.violations):11}"
    )


async def outages(folder: Path, names: list[str], seconds: float) -> int:
    """Suffer the outages one after the other on one stage; return how many violations there were."""
    table: list[Outcome] = []
    found = 0
    stage = Stage(folder / "stage", nats_config=SLOW_CONSUMER)
    try:
        await stage.start()
        for name in names:
            if name in OUTAGES:
                outcome = await suffer(stage, OUTAGES[name], seconds / 2 if "read_only" in name else seconds)
                table.append(outcome)
                say(row(outcome))
    except AssertionError as error:
        # The stage is not what it was: the outages that follow would say nothing.
        say(f"{names[len(table)]}: {error}")
        found += 1
    finally:
        await stage.stop()
    if "pgbouncer" in names:
        if find_pgbouncer() is None:
            say("pgbouncer                skipped: there is none; apt-get install pgbouncer")
        else:
            table += await pooled(folder / "pooled", seconds)
            for outcome in table[-2:]:
                say(row(outcome))
    for outcome in table:
        for violation in outcome.violations:
            say(f"{outcome.outage}: {violation}")
            found += 1
    say()
    head = ("outage", "lasted", "before: back", "during: back", "pieces", "violations")
    say("{:24} {:>8} {:>14} {:>14} {:>7} {:>11}".format(*head))
    for outcome in table:
        say(row(outcome))
    say("lasted: seconds; before: from death, during: from the outage's end, to the work being back, in seconds")
    return found


async def replicas(folder: Path, times: int) -> int:
    """Kill the leader in the middle of the lapses so many times, and stop it once; return the violations."""
    takeovers, found = [], 0
    for number in range(times):
        takeover = await take_over(folder / f"killed{number}", number, killed)
        takeovers.append(takeover.seconds)
        found += len(takeover.violations)
        of = f"{takeover.reclaimed_before} of {LAPSES + 1} reclaimed before"
        wrong = f"{len(takeover.violations)} violations"
        say(f"killed {number + 1:3}: {of}, takeover after {takeover.seconds:.2f} s, {wrong}")
        for violation in takeover.violations:
            say(f"  {violation}")
    stopped = await take_over(folder / "paused", times, paused)
    found += len(stopped.violations)
    say(f"stopped: takeover after {stopped.seconds:.2f} s, {len(stopped.violations)} violations")
    for violation in stopped.violations:
        say(f"  {violation}")
    say(f"takeover: median {statistics.median(takeovers):.2f} s, longest {max(takeovers):.2f} s, of {times}")
    return found


def main() -> int:
    """Run what was asked for; 1 when there was any violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.outages", description=__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long an outage lasts (10)")
    parser.add_argument("--replicas", type=int, metavar="TIMES", help="instead: kill the leader of two so often")
    parser.add_argument("outages", nargs="*", metavar="OUTAGE", help=f"of {', '.join([*OUTAGES, 'pgbouncer'])}; all")
    asked = parser.parse_args()
    unknown = set(asked.outages) - {*OUTAGES, "pgbouncer"}
    if unknown:
        parser.error(f"there is no outage {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="liveness-outages-") as folder:
        if asked.replicas:
            found = asyncio.run(replicas(Path(folder), asked.replicas))
        else:
            found = asyncio.run(outages(Path(folder), asked.outages or [*OUTAGES, "pgbouncer"], asked.seconds))
    say(f"{found} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
