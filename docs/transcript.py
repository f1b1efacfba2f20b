#!/usr/bin/env python3
"""Put what `liveness demo` prints into the README.

    liveness demo | python docs/transcript.py            write it
    liveness demo | python docs/transcript.py --check    change nothing; exit 1 and show what the README tells otherwise

A demonstration that failed is not put anywhere. --check does not look at what is another each time: times, process
ids, ids of workflows, and which of the living workers was the quicker.
"""

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import Final

README: Final = Path(__file__).resolve().parents[1] / "README.md"
TRANSCRIPT: Final = re.compile(r"(?<=```console\n\$ liveness demo\n).*?(?=```\n)", re.DOTALL)
LAST_LINE: Final = re.compile(r"All \d+ workflows were completed exactly once\.")
# What is another each time, and what stands for it. The lines of a table are as long as what is in it.
VARYING: Final = (
    (r"\d+\.\d+ s", "TIME"),
    (r"processes \d+(, \d+)*", "processes PIDS"),
    (r"\b[0-9a-f]{8}\b", "ID"),
    (r"worker-[13](?! *,)(?!,? start)", "ANOTHER"),
    (r"[━─]+", "-"),
    (r" +", " "),
)


def masked(told: str) -> list[str]:
    """Return the lines with a word for all that varies.

    Sorted: news of one moment may come in either order.
    """
    for pattern, word in VARYING:
        told = re.sub(pattern, word, told)
    return sorted(line.strip() for line in told.splitlines())


def main() -> int:
    """Write what differs, or with --check only show it."""
    parser = argparse.ArgumentParser(description="Put what `liveness demo` prints, read from stdin, into the README.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 and show what differs")
    only_check = parser.parse_args().check
    told = "\n".join(line.rstrip() for line in sys.stdin.read().splitlines()) + "\n"
    if not LAST_LINE.fullmatch(told.splitlines()[-1]):
        sys.stderr.write("the demonstration did not end well\n")
        return 1
    readme = README.read_text(encoding="utf-8")
    found = TRANSCRIPT.search(readme)
    if found is None:
        sys.stderr.write("README.md has no block ```console that begins with $ liveness demo\n")
        return 1
    if not only_check:
        README.write_text(readme[: found.start()] + told + readme[found.end() :], encoding="utf-8")
        return 0
    differing = [*difflib.unified_diff(masked(found[0]), masked(told), "README.md", "liveness demo", n=0, lineterm="")]
    sys.stdout.write("".join(f"{line}\n" for line in differing))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
