"""CPU per heartbeat, from the socket to the renewed lease, decoding included."""

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tests.benchmarks.child import child
from tests.benchmarks.figures import Measured, Outcome, Plan, Reach, Row, by_turns
from tests.benchmarks.load import beats
from tests.benchmarks.receiver import ON_UVLOOP, missing_uvloop
from tests.benchmarks.servers import nats, port_of

NUMBER: Final = 1
WORKERS: Final = 1_000
# Beats a second; 0: as many as there are. At a pace a read brings few beats, and to be woken for it costs more than all
# of them, whoever is woken.
FLAT_OUT: Final = 0
PACE: Final = 20_000
# The least that Python can do: find each beat in the bytes, and remember when its worker was heard.
_FLOOR: Final = re.compile(rb"MSG liveness\.heartbeat\.(\S+) 1 \d+\r\n(.*?)\r\n", re.DOTALL)
_FLOOR_ROUNDS: Final = 20


async def measure(plan: Plan) -> Outcome:
    """Measure both kinds of beats, by turns with the bare callback and the floor."""
    rows = []
    async with nats() as server:
        for beat, of in (("short", "40 bytes"), ("full", "as Heartbeater sends it")):
            sides = Sides(plan, port_of(server.url), beat)
            ours, bare, least, *fast = await by_turns(
                plan.pick(7, 3), sides.ours, sides.bare, sides.floor, *sides.uvloop_if_there()
            )
            rows.append(_row(f"heartbeat, {of}", ours, "bare nats-py callback", bare, Reach(0.4)))
            # The floor is stated for 40 bytes; a regular expression over longer ones does more than it has to.
            reach = Reach(2.5) if beat == "short" else None
            rows.append(_row(f"heartbeat, {of}", ours, "one regex and a dict", least, reach))
            rows.append(_beside_uvloop(f"heartbeat, {of}", ours, fast))
            sides = Sides(plan, port_of(server.url), beat, PACE)
            ours, bare, *fast = await by_turns(plan.pick(5, 1), sides.ours, sides.bare, *sides.uvloop_if_there())
            rows.append(_row(f"the same, {PACE:,} a second", ours, "bare nats-py callback", bare, None))
            rows.append(_beside_uvloop(f"the same, {PACE:,} a second", ours, fast))
    return Outcome(rows)


class Sides:
    """Who hears one kind of beats; microseconds of CPU for each."""

    def __init__(self, plan: Plan, port: int, beat: str, rate: float = FLAT_OUT) -> None:
        self._plan = plan
        self._port = port
        self._beat = beat
        self._rate = rate
        self._count = plan.pick(200_000, 40_000)

    async def ours(self) -> float:
        """The service's way in."""
        return await self._heard_by("ours")

    async def uvloop(self) -> float:
        """The same on uvloop."""
        return await self._heard_by("uvloop")

    def uvloop_if_there(self) -> list[Callable[[], Awaitable[float]]]:
        """That one, if it can be measured."""
        return [] if missing_uvloop() else [self.uvloop]

    async def bare(self) -> float:
        """nats-py's callback."""
        return await self._heard_by("bare")

    async def floor(self) -> float:
        """The least that can be done, without a socket."""
        lines = [
            _as_message(line) for seq in range(_FLOOR_ROUNDS) for line in beats(self._beat, WORKERS, seq, "N" * 56)
        ]
        data = b"".join(lines)
        leases: dict[bytes, float] = {}
        now, began = 1.0, time.process_time()
        for found in _FLOOR.finditer(data):
            leases[found.group(1)] = now
        taken = time.process_time() - began
        assert len(leases) == WORKERS
        return taken / len(lines) * 1e6

    async def _heard_by(self, kind: str) -> float:
        self._plan.say(f"{self._count:,} {self._beat} heartbeats to {kind}")
        async with child("tests.benchmarks.receiver", kind, self._port, WORKERS, self._beat) as receiver:
            await receiver.says()
            # Whatever a worker's first beats do more than its later ones.
            await run_load(self._port, WORKERS * 2, self._beat)
            receiver.tell(str(WORKERS * 2))
            await receiver.says()
            await run_load(self._port, self._count, self._beat, self._rate)
            receiver.tell(str(self._count))
            said = await receiver.says()
        assert said["heard"] >= self._count, said
        return float(said["cpu"] / said["heard"] * 1e6)


async def run_load(port: int, count: int, beat: str, rate: float = PACE) -> None:
    """Send so many beats, and return when the server has them."""
    async with child("tests.benchmarks.load", port, WORKERS, rate, count, beat) as load:
        await load.says()
        await load.says()


def _as_message(line: bytes) -> bytes:
    """Return what the server makes of what a client publishes."""
    _, subject, rest = line.split(b" ", 2)
    return b"MSG %b 1 %b" % (subject, rest)


def _beside_uvloop(what: str, ours: Measured, fast: Sequence[Measured]) -> Row:
    return Row(
        number=NUMBER, what=what, ours=ours, unit="us", baseline=ON_UVLOOP, theirs=next(iter(fast), None),
        note=missing_uvloop() or "",
    )  # fmt: skip


def _row(what: str, ours: Measured, baseline: str, theirs: Measured, reach: Reach | None) -> Row:
    return Row(number=NUMBER, what=what, ours=ours, unit="us", baseline=baseline, theirs=theirs, reach=reach)
