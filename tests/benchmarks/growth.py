"""Cost of a heartbeat and of a tick, by the number of leases.

A heartbeat goes from the bytes of a read (64 KiB, made a moment before, as the kernel would hand them over) through the
framing and `Renewals` to the renewed lease, as `Heartbeater` states it. The workers beat in one and the same order, in
which their leases also lie in memory; or anybody beats at any time. Memory likes that least, for each is somewhere
else, and a service that restored its leases is nearer to this.

A tick is what an echo sets off while nobody is due, every time: hearing time moves, and the replica that acts asks who
is due, who is to be probed and whether there is a storm, and when to look again; one that follows looks for storms.

The baseline is the same with 1,000 leases, measured by turns in one process that holds the books of all sizes. How much
of the growth is the memory's own shows a dict of name to float, which notes the same heartbeats and does nothing else.
"""

import asyncio
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Final

from liveness.messages import SHORT
from liveness.wire import run_of
from tests.benchmarks.child import child, say
from tests.benchmarks.figures import Curve, Measured, Outcome, Plan, Reach, Row
from tests.benchmarks.parts import SID, Parts, beat, name

NUMBER: Final = 8
SIZES: Final = (1_000, 10_000, 100_000, 1_000_000)
QUICK_SIZES: Final = (1_000, 10_000, 100_000)
READ_BYTES: Final = 1 << 16
TICKS: Final = 1_000
_ORDERS: Final = {"order": "workers in order", "random": "workers at random"}
_TICKS: Final = {"acts": "tick of the one who acts", "follows": "tick of one who follows"}


async def measure(plan: Plan) -> Outcome:
    """Measure all sizes by turns, for each order of the workers."""
    sizes, turns = (QUICK_SIZES, 3) if plan.quick else (SIZES, 7)
    rows, lines = [], {}
    for order, by in _ORDERS.items():
        plan.say(f"{', '.join(f'{size:,}' for size in sizes)} leases, {by}")
        found: dict[tuple[str, int], list[float]] = {}
        async with child("tests.benchmarks.growth", order, plan.pick(200_000, 20_000), *sizes) as process:
            await process.says()
            for _ in range(turns):
                process.tell()
                for what, size, micros in await process.says():
                    found.setdefault((what, size), []).append(micros)
        ours, names = f"heartbeat, {by}", f"a dict, {by}"
        whats = {"beat": ours, "names": names}
        if order == "order":
            # Nothing of a tick depends on the order in which the workers beat.
            whats |= _TICKS
        figures = {what: {size: Measured(found[what, size]) for size in sizes} for what in whats}
        for what, shown in whats.items():
            lines[shown] = [(float(size), figure.median) for size, figure in figures[what].items()]
            if what != "names":
                rows += _rows(shown, figures[what])
            else:
                rows.append(_beside(ours, figures["beat"], figures[what]))
    curve = Curve(
        name="growth",
        title="Cost by the number of leases",
        x="leases",
        y="microseconds of CPU",
        lines=lines,
        log_x=True,
    )
    return Outcome(rows, [curve])


def _rows(what: str, figures: Mapping[int, Measured]) -> list[Row]:
    least, *others = figures
    return [
        Row(
            number=NUMBER, what=f"{what}, {size:,} leases", ours=figures[size], unit="us",
            baseline=f"with {least:,}", theirs=figures[least], reach=Reach(1.5),
        )
        for size in others
    ]  # fmt: skip


def _beside(what: str, ours: Mapping[int, Measured], names: Mapping[int, Measured]) -> Row:
    least, most = min(names), max(names)
    grown = names[most].median / names[least].median
    return Row(
        number=NUMBER, what=f"{what}, {most:,} leases", ours=ours[most], unit="us", baseline=f"a dict of {most:,}",
        theirs=names[most], note=f"the dict: {grown:.2f} times its {least:,}",
    )  # fmt: skip


class Size:
    """One service with so many leases."""

    def __init__(self, workers: int, *, in_order: bool) -> None:
        self._parts = Parts()
        self._parts.fill(workers)
        self._storms = self._parts.assembly.storms
        rng = random.Random(workers)
        self._next: Iterator[int] = (
            (beats % workers for beats in count()) if in_order else (rng.randrange(workers) for _ in count())
        )
        self._pattern = run_of(self._parts.assembly.subjects.all_heartbeats, SID, SHORT)
        self._names = {name(worker).encode(): float(worker) for worker in range(workers)}
        self._seq = 0

    def beats(self, least: int) -> float:
        """Hear so many heartbeats; return the CPU for each, in microseconds."""
        parts, taken, heard = self._parts, 0.0, 0
        heard_before, long_before = parts.assembly.intake.counts["heartbeats"], parts.long
        while heard < least:
            data, some = self._read()
            # What was proven before is not older than an echo's interval in a service, either.
            parts.echo()
            began = time.process_time()
            parts.read(data)
            taken += time.process_time() - began
            heard += some
        assert parts.assembly.intake.counts["heartbeats"] - heard_before == heard
        assert parts.long == long_before
        return taken / heard * 1e6

    def names(self, least: int) -> float:
        """Note so many heartbeats in a dict; return the CPU for each, in microseconds."""
        names, taken, heard = self._names, 0.0, 0
        workers = len(names)
        while heard < least:
            data, some = self._read()
            began = time.process_time()
            now = time.monotonic()
            for match in self._pattern.finditer(data):
                names[match.group(1)] = now
            taken += time.process_time() - began
            heard += some
        assert len(names) == workers
        return taken / heard * 1e6

    async def ticks(self, *, acts: bool) -> float:
        """Let so many ticks pass; return the CPU for each, in microseconds."""
        parts = self._parts
        parts.assembly.leadership.leading = acts
        # Behind what was done since the last one, this one may be a gap.
        parts.echo()
        moment, began = parts.assembly.hearing.now, time.process_time()
        for _ in range(TICKS):
            # At each, and not only as often as it is made to.
            self._storms._watch_at = parts.assembly._look_at = -math.inf
            parts.echo()
            if acts:
                parts.assembly.wakes.endings.clear()
                await parts.assembly._expire()
        taken = time.process_time() - began
        assert parts.assembly.hearing.now > moment
        assert not parts.book.endings
        return taken / TICKS * 1e6

    def _read(self) -> tuple[bytes, int]:
        self._seq += 1
        pieces, size = [], 0
        while size < READ_BYTES:
            pieces.append(beat(next(self._next), self._seq))
            size += len(pieces[-1])
        return b"".join(pieces), len(pieces)


async def _turn(sizes: dict[int, Size], beats: int) -> list[tuple[str, int, float]]:
    found = [("beat", workers, size.beats(beats)) for workers, size in sizes.items()]
    found += [("names", workers, size.names(beats)) for workers, size in sizes.items()]
    for workers, size in sizes.items():
        found += [(what, workers, await size.ticks(acts=what == "acts")) for what in ("acts", "follows")]
    return found


def main(order: str, beats: int, workers: list[int]) -> None:
    """Fill the books; then, for each line of the standard input, measure each of them and say what was found."""
    sizes = {size: Size(size, in_order=order == "order") for size in workers}
    for size in sizes.values():
        # What the first round does more than later ones.
        size.beats(min(workers))
    say({"ready": True})
    for _ in sys.stdin:
        say(asyncio.run(_turn(sizes, beats)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(word) for word in sys.argv[3:]])
