"""How many heartbeats a second are heard, for good: none dropped, and no gap in hearing.

Load, nats-server and receiver share this machine, as everywhere here. A rate is sustained when beats at that rate were
all sent and heard `BEHIND_SECONDS` behind their time at most, hearing had no gap (an echo of ours came back within
`max_gap` all the time), and no lease lapsed. For the bare callback, which knows no echo, to be behind is what a gap is
for us. The rate grows by steps until it is not sustained, and is then confirmed for longer. The figure is how many were
heard over the time that it took, what was behind at the end included.

The peers are loaded flat out, and nothing more is asked of them than to acknowledge what they take: no end of a key is
looked for meanwhile.
"""

import functools
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec

from liveness.settings import Settings
from tests.benchmarks.child import Child, child
from tests.benchmarks.figures import Measured, Outcome, Plan, Reach, Row, by_turns
from tests.benchmarks.peer import Peer
from tests.benchmarks.peers import EXPIRING, UPDATE
from tests.benchmarks.receiver import ON_UVLOOP, missing_uvloop
from tests.benchmarks.servers import nats, port_of

NUMBER: Final = 2
# Who is this late has had a gap.
BEHIND_SECONDS: Final = Settings().max_gap
# From one step to the next, until one is sustained and one is not; then between them, until they are as near as `FINE`.
STEP: Final = 1.25
FINE: Final = 1.06
STEPS: Final = 8
QUICK_STEPS: Final = 3
# How often a rate is lowered that was sustained for a moment only.
TRIES: Final = 6
BARE: Final = "bare nats-py callback"
Side = Callable[[], Awaitable[float]]


async def measure(plan: Plan) -> Outcome:
    """Search by turns with the bare callback and all peers."""
    peers: list[Peer] = [*EXPIRING, UPDATE]
    there = [peer for peer in peers if peer.missing() is None]
    times = plan.pick(3, 1)
    without_uvloop = missing_uvloop() or ("not in a quick run" if plan.quick else "")
    kinds = ["ours", "bare", *([] if without_uvloop else ["uvloop"])]
    async with nats() as server:
        port = port_of(server.url)
        searches = [Search(plan, port, kind) for kind in kinds]
        sides = _highest(searches)
        sides += [functools.partial(_taken, plan, peer) for peer in there]
        found = await by_turns(times, *sides)
        rows = [_against_bare("heartbeats of 40 bytes", searches, found, Reach(1.5, at_least=True))]
        fast = None if without_uvloop else found[2]
        rows.append(_row("heartbeats of 40 bytes", found[0], ON_UVLOOP, fast, note=without_uvloop))
        if not plan.quick:
            longer = [Search(plan, port, kind, "full") for kind in kinds[:2]]
            rows.append(
                _against_bare("as Heartbeater sends it", longer, await by_turns(times, *_highest(longer)), None)
            )
    taken = dict(zip([peer.name for peer in there], found[len(kinds) :], strict=True))
    for peer in peers:
        reach = Reach(30.0 if peer is UPDATE else 1.0, at_least=True)
        rows.append(_row("heartbeats", found[0], peer.name, taken.get(peer.name), reach, peer.missing() or ""))
    return Outcome(rows)


class Trial(msgspec.Struct, frozen=True):
    """What came of one rate: beats heard a second, and what was against it, or None."""

    heard: float
    complaint: str | None


class Search:
    """Finds the highest rate that one kind of receiver sustains. `beyond` is what happened above it the last time."""

    def __init__(self, plan: Plan, port: int, kind: str, beat: str = "short") -> None:
        self.kind = kind
        self.beyond = "nothing was against it"
        self._plan = plan
        self._port = port
        self._beat = beat
        self._workers = plan.pick(100_000, 10_000)
        self._stack = AsyncExitStack()
        self._receiver: Child | None = None

    async def highest(self) -> float:
        """Return beats heard a second at the highest rate that was confirmed; 0 if none was."""
        try:
            rate = await self._searched(await self._at_once())
            for _ in range(TRIES):
                trial = await self._trial(rate, self._plan.pick(10, 2))
                if trial.complaint is None:
                    self._plan.say(f"{self.kind}: {trial.heard:,.0f}/s; above: {self.beyond}")
                    return trial.heard
                rate /= FINE
        finally:
            await self._forget()
        return 0.0

    async def _searched(self, rate: float) -> float:
        """Return the highest rate that was sustained for a moment, or one that may be."""
        low, high = 0.0, math.inf
        for _ in range(self._plan.pick(STEPS, QUICK_STEPS)):
            if (await self._trial(rate, self._plan.pick(3, 1))).complaint is None:
                low = rate
            else:
                high = rate
            if low and high / low < FINE:
                break
            rate = low * STEP if math.isinf(high) else high / STEP if not low else math.sqrt(low * high)
        return low or rate

    async def _at_once(self) -> float:
        """Return beats heard a second when they come as fast as they can, for a moment."""
        receiver = await self._hears()
        count = self._workers * self._plan.pick(4, 10)
        receiver.tell(str(count))
        await self._load(0, count)
        return float(_rate_of(await receiver.says()))

    async def _trial(self, rate: float, seconds: float) -> Trial:
        receiver = await self._hears()
        count = int(rate * seconds)
        receiver.tell(str(count))
        sent = await self._load(rate, count)
        try:
            said = await receiver.says(BEHIND_SECONDS)
        except TimeoutError:
            # What it says later would be taken for the next one's.
            await self._forget()
            return self._found(rate, Trial(0.0, f"{BEHIND_SECONDS:g} s behind"))
        complaint = next((f"{said[what]} {what}" for what in ("gaps", "dropped", "lapses") if said[what]), None)
        if complaint is None and sent["seconds"] > seconds + BEHIND_SECONDS:
            # The load was the limit, or the server.
            complaint = "not sent in time"
        return self._found(rate, Trial(_rate_of(said), complaint))

    def _found(self, rate: float, trial: Trial) -> Trial:
        self._plan.say(f"{self.kind} at {rate:,.0f}/s: {trial.complaint or 'sustained'}")
        if trial.complaint is not None:
            self.beyond = f"at {rate:,.0f}/s {trial.complaint}"
        return trial

    async def _load(self, rate: float, count: int) -> dict[str, float]:
        """Send so many beats, and return when the server has them all."""
        async with child("tests.benchmarks.load", self._port, self._workers, rate, count, self._beat) as load:
            await load.says()
            sent: dict[str, float] = await load.says()
            return sent

    async def _hears(self) -> Child:
        """Return the receiver, which has heard every worker already."""
        if self._receiver is None:
            made = child("tests.benchmarks.receiver", self.kind, self._port, self._workers, self._beat)
            self._receiver = await self._stack.enter_async_context(made)
            await self._receiver.says()
            # Whatever a worker's first beats do more than its later ones.
            self._receiver.tell(str(2 * self._workers))
            await self._load(0, 2 * self._workers)
            await self._receiver.says()
        return self._receiver

    async def _forget(self) -> None:
        self._receiver = None
        await self._stack.aclose()


async def _taken(plan: Plan, peer: Peer) -> float:
    taken = await peer.rate(plan)
    plan.say(f"{peer.name}: {taken:,.0f}/s")
    return taken


def _rate_of(said: dict[str, Any]) -> float:
    return float(said["heard"] / said["seconds"])


def _highest(searches: Sequence[Search]) -> list[Side]:
    return [search.highest for search in searches]


def _against_bare(what: str, searches: Sequence[Search], found: Sequence[Measured], reach: Reach | None) -> Row:
    note = "; ".join(f"{search.kind}: {search.beyond}" for search in searches[:2])
    return _row(what, found[0], BARE, found[1], reach, note)


def _row(
    what: str, ours: Measured, baseline: str, theirs: Measured | None, reach: Reach | None = None, note: str = ""
) -> Row:
    return Row(number=NUMBER, what=what, ours=ours, unit="/s", baseline=baseline, theirs=theirs, reach=reach, note=note)
