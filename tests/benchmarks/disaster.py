"""1,000 of 2,500 workers die at once, 100 rows each: 100,000 rows PENDING, with history and outbox.

How long it takes is read from the rows: from the beginning of the first transaction that put one back (`updated_at`) to
the commit of the last one (Postgres notes both), whoever does it. That the dead are found is not in it; `lateness` and
`detection` measure that. The baseline is one UPDATE of as many rows in the same table, by turns, which writes no
history and tells nobody. Both are measured while 1,500 workers go on beating and the host goes about its other
business: 400 small transactions a second on other rows. The service publishes some of the news meanwhile and the rest
afterwards, as it always does.

Of those other transactions, the 99th percentile while the rows go back is compared with that of the quiet before, for
as long. `fsync` is on for both. 40 % of a group are no storm.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from liveness.settings import Settings
from tests.benchmarks.figures import Curve, Measured, Outcome, Plan, Reach, Row, percentile
from tests.benchmarks.scene import Scene, Size, Took, scene

NUMBER: Final = 5
FULL: Final = Size(workers=2_500, dying=1_000, each=100, ttl=10.0)
QUICK: Final = Size(workers=750, dying=300, each=30, ttl=3.0)
CHUNKS: Final = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 100_000)
# The quiet before ends so long before the first row goes back: a second before its lease ends, a worker is asked.
ASKED_SECONDS: Final = 1.2
SHARE: Final = 0.99


class Turn(msgspec.Struct, frozen=True):
    """One disaster: what it took, the others' p99 (seconds) without it, with it and while the rest of its news go out.

    `news`: how long (seconds) after its beginning the last of them was out. `gaps`: in hearing.
    """

    took: Took
    without: float
    beside: float
    behind: float
    news: float
    gaps: int


async def measure(plan: Plan) -> Outcome:
    """Measure disasters by turns with bare updates, and then, if there is time, chunks of other sizes."""
    size = QUICK if plan.quick else FULL
    turns: list[Turn] = []
    bare: list[Took] = []
    beside_bare: list[float] = []
    async with scene(size) as place:
        for number in range(plan.pick(5, 2)):
            plan.say(f"disaster {number + 1}: {size.rows:,} rows")
            took = await place.bare()
            bare.append(took)
            beside_bare.append(_p99(await place.others(), took.began, took.ended))
            turns.append(await disaster(place))
            plan.say(f"{turns[-1].took.seconds:.2f} s, one UPDATE {took.seconds:.2f} s")
    curves = [_over_time(turns[-1].took, bare[-1])]
    if not plan.quick:
        curves += await _chunks(plan, size)
    return Outcome(_rows(size, turns, bare, beside_bare), curves)


async def disaster(place: Scene) -> Turn:
    """Let it happen once."""
    await place.others()
    it = await place.disaster()
    took, samples = it.took, await place.others()
    quiet_ended = took.began - ASKED_SECONDS
    return Turn(
        took,
        without=_p99(samples, max(it.died, quiet_ended - took.seconds), quiet_ended),
        beside=_p99(samples, took.began, took.ended),
        behind=_p99(samples, took.ended, it.told),
        news=it.told - took.began,
        gaps=it.gaps,
    )


async def _chunks(plan: Plan, size: Size) -> list[Curve]:
    seconds, beside = [], []
    for chunk in CHUNKS:
        plan.say(f"chunks of {chunk:,}")
        async with scene(size, reclaim_chunk=chunk) as place:
            # The first one in a fresh database pays for what all later ones find there.
            await disaster(place)
            turn = await disaster(place)
        seconds.append((float(chunk), turn.took.seconds))
        beside.append((float(chunk), turn.beside * 1_000))
    default = f"reclaim_chunk (rows); its default is {Settings().reclaim_chunk:,}"
    return [
        Curve(
            name="chunk-time", title=f"{size.rows:,} rows PENDING, by chunk", x=default, y="seconds",
            lines={"seconds": seconds}, log_x=True,
        ),
        Curve(
            name="chunk-others", title="The host's other transactions meanwhile, by chunk", x=default,
            y="99th percentile, ms", lines={"p99": beside}, log_x=True,
        ),
    ]  # fmt: skip


def _rows(size: Size, turns: Sequence[Turn], bare: Sequence[Took], beside_bare: Sequence[float]) -> list[Row]:
    time = Measured([turn.took.seconds for turn in turns])
    beside = Measured([turn.beside * 1_000 for turn in turns])
    return [
        Row(
            number=NUMBER, what=f"{size.dying:,} workers die: {size.rows:,} rows PENDING", ours=time, unit="s",
            baseline="one bare UPDATE", theirs=Measured([took.seconds for took in bare]), reach=Reach(2.5),
        ),
        Row(
            number=NUMBER, what="other transactions meanwhile, p99", ours=beside, unit="ms",
            baseline="without", theirs=Measured([turn.without * 1_000 for turn in turns]), reach=Reach(2.0),
        ),
        Row(
            number=NUMBER, what="the same", ours=beside, unit="ms", baseline="beside one bare UPDATE",
            theirs=Measured([seconds * 1_000 for seconds in beside_bare]),
        ),
        Row(
            number=NUMBER, what="the same, then, while the rest of the news go out",
            ours=Measured([turn.behind * 1_000 for turn in turns]), unit="ms",
            baseline="without", theirs=Measured([turn.without * 1_000 for turn in turns]),
        ),
        Row(
            number=NUMBER, what="the last of the news out", ours=Measured([turn.news for turn in turns]), unit="s",
        ),
        Row(
            number=NUMBER, what="gaps in hearing meanwhile", ours=Measured([float(turn.gaps) for turn in turns]),
            unit="gaps", reach=Reach(0, alone=True),
        ),
    ]  # fmt: skip


def _over_time(ours: Took, bare: Took) -> Curve:
    return Curve(
        name="disaster", title="Rows PENDING since the first transaction began", x="seconds", y="rows",
        lines={"liveness": _points(ours), "one UPDATE": _points(bare)},
    )  # fmt: skip


def _points(took: Took) -> list[tuple[float, float]]:
    """Return the steps of a curve."""
    points, before = [(0.0, 0.0)], 0
    for at, rows in took.commits:
        points += [(at - took.began, float(before)), (at - took.began, float(rows))]
        before = rows
    return points


def _p99(samples: Sequence[Sequence[float]], began: float, ended: float) -> float:
    """Return the 99th percentile (seconds) of what ran in that stretch, by its beginning, or was under way at it."""
    return percentile([seconds for at, seconds in samples if at + seconds > began and at < ended], SHARE)
