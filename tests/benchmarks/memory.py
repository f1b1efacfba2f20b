"""Memory for each lease, and of a process that holds a million of them.

Each figure is of a process of its own: its resident memory behind the filling, less that before it (the whole service
is imported by then), over the number of leases. Of that the bytes of each worker's name are taken off once, as
`sys.getsizeof` has them: without a name nobody can be remembered. All else counts: what finds a lease by its name,
other copies of the name, the epoch, the incarnation (a text of 32 characters, 81 bytes, that a script need not state).

The leases are as a service has them: restored, with their epochs, and heard; each beat in a read of its own, so that no
two leases share the number for when that was. The baseline is the least that can remember who was heard when: a dict
of name to float.
"""

import gc
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import liveness.service  # noqa: F401 - all that a service imports counts as its memory
from tests.benchmarks.child import run, say
from tests.benchmarks.figures import Measured, Outcome, Plan, Reach, Row, by_turns
from tests.benchmarks.parts import Parts, name

NUMBER: Final = 7
SIZES: Final = (10_000, 100_000, 1_000_000)
QUICK_SIZES: Final = (10_000, 100_000)


async def measure(plan: Plan) -> Outcome:
    """Measure leases of both kinds of workers at each size, by turns with the dict."""
    rows, sizes = [], QUICK_SIZES if plan.quick else SIZES
    for size in sizes:
        plan.say(f"{size:,} leases, and as many names in a dict")
        whole: list[float] = []
        full, short, names = await by_turns(
            plan.pick(3, 1), _side("full", size, whole), _side("short", size, []), _side("dict", size, [])
        )
        rows.append(_row(f"a lease over its name, of {size:,}", full, names))
        rows.append(_row(f"the same, without incarnation, of {size:,}", short, names))
        # The promise is of a million.
        reach = Reach(500, alone=True) if size == SIZES[-1] else None
        what = f"the whole process, of {size:,} leases"
        rows.append(Row(number=NUMBER, what=what, ours=Measured(whole), unit="MB", reach=reach))
    return Outcome(rows)


def _side(kind: str, size: int, whole: list[float]) -> Callable[[], Awaitable[float]]:
    async def measured() -> float:
        said = await run("tests.benchmarks.memory", kind, size)
        whole.append(said["whole"] / 1e6)
        return float(said["each"])

    return measured


def _row(what: str, ours: Measured, theirs: Measured) -> Row:
    return Row(
        number=NUMBER, what=what, ours=ours, unit="B", baseline="dict of name to float", theirs=theirs,
        reach=Reach(250, alone=True),
    )  # fmt: skip


def resident(process: int | str = "self") -> int:
    """Return the bytes of memory that a process has, by its number; this one without."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(kind: str, size: int) -> None:
    """Fill a process, and say what an entry took, and all of it."""
    parts, heard = Parts(), dict[bytes, float]()
    gc.collect()
    before = resident()
    if kind == "dict":
        for worker in range(size):
            # Each with a number of its own, as each was heard.
            heard[name(worker).encode()] = float(worker)
    else:
        parts.fill(size, full=kind == "full")
    gc.collect()
    whole = resident()
    names = list(heard) or [lease.name for lease in parts.book]
    assert len(names) == size
    say({"each": (whole - before - sum(map(sys.getsizeof, names))) / size, "whole": whole})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
