"""The command: `python -m tests.upgrade`, or `python -m tests.upgrade --from v0.1.0`."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.upgrade.former import Former, NoFormerError, find_former, git, unpack
from tests.upgrade.upgrade import NotBesideError, Upgrade

ROOT = Path(__file__).parents[2]


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Return 1 for what was not as it has to be, and 0 where there is nothing to upgrade from, saying so."""
    parser = argparse.ArgumentParser(prog="python -m tests.upgrade", description=__doc__)
    parser.add_argument("--from", dest="of", help="A tag or commit, instead of the newest tag before this commit.")
    of = parser.parse_args().of
    with tempfile.TemporaryDirectory(prefix="liveness-upgrade-") as name:
        folder = Path(name)
        # The embedded Postgres runs as another user, who has to get there.
        folder.chmod(0o755)
        try:
            former = find_former(ROOT) if of is None else Former(git(ROOT, "rev-parse", of).decode().strip(), of)
            code = unpack(ROOT, former, folder / "code")
        except NoFormerError as error:
            say(f"skipped: {error}")
            return 0
        say(f"from {former.name} ({former.commit[:12]})")
        upgrade = Upgrade(folder / "stage", code)
        try:
            violations = asyncio.run(upgrade.go())
        except NotBesideError as error:
            say(f"skipped: {error}")
            return 0
        finally:
            for step in upgrade.steps:
                say(f"{step.done:50} {step.leads} leads; a dead worker's work is back after {step.seconds:.2f} s")
    for violation in violations:
        say(str(violation))
    say(f"{len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
