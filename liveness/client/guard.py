"""The last one there: a process that ends a process group when whoever started it is gone, however that ended.

A program that imports nothing of this package, so that it starts at once: `python guard.py`. On its standard input it
is told which process group is to end, a number and a line's end, or 0 when it need not any more. When the input ends,
which it does with the process at its other end, whatever killed that, the group is killed.
"""

import contextlib
import os
import signal
import sys


def main() -> None:
    """Keep what was told last until there is nobody any more who could tell."""
    # What is meant for the others must not end the one who ends them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    group = 0
    for line in sys.stdin:
        group = int(line)
    if group:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    main()
