"""Two replicas, many lapses, and the leader killed, or stopped, in the middle of them."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.outages.checker import Violation, check
from tests.outages.crowd import Crowd
from tests.outages.history import clock, read_history
from tests.outages.stage import Replica, Stage, eventually

LAPSES: Final = 200
# So that those who fall silent are a minority: when nearly everyone does, the service doubts itself first.
LIVING: Final = 260
# Falls silent before all others. Once it has lapsed, what the service allows everybody at its start is over, and each
# of the others lapses by its own last beat rather than all at once.
FIRST: Final = "first"
# Over so long they fall silent, one after the other.
SPREAD_SECONDS: Final = 3.0
# Of 200: far enough from both ends.
MIDDLE: Final = range(40, 160)

# When each epoch's end was committed, by Postgres. That the host's clock steps is not among our faults.
_COMMITS: Final = """
    SELECT extract(epoch FROM pg_xact_commit_timestamp(transaction_id::text::xid))::float AS at, decided_by
    FROM liveness.expiration ORDER BY 1
"""


@dataclass(frozen=True)
class Takeover:
    """What became of one run: reclaims before the leader's end, and seconds from it to the next commit of another."""

    reclaimed_before: int
    seconds: float
    violations: list[Violation]


class Pair:
    """Two replicas and a crowd of workers, of whom some will die."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.stage: Final = Stage(folder, workers=0, seed=seed)
        self._chance: Final = random.Random(seed)
        self._dying: Final = [f"dying{number}" for number in range(LAPSES)]
        names = [FIRST, *self._dying, *(f"living{number}" for number in range(LIVING))]
        self.crowd: Final = Crowd(names, self.stage.ttl)

    async def start(self) -> None:
        """Start everything; each worker of the crowd gets one piece of work."""
        await self.stage.start(replicas=2)
        names = list(self.crowd.beating)
        async with self.stage.database() as database:
            await database.execute("INSERT INTO worker (worker_name) SELECT unnest($1::text[])", names)
            await database.execute(
                "INSERT INTO workflow_execution (worker_id, claimed_by, status) SELECT n, n, 'RUNNING'"
                " FROM unnest($1::text[]) AS n",
                names,
            )

    async def reclaimed(self) -> int:
        """How many pieces of work went back so far."""
        return int(await self.stage.value("SELECT count(*) FROM liveness.reclaim"))

    async def known(self) -> None:
        """Wait until everybody has an epoch, and one has died."""

        async def count() -> int:
            return int(await self.stage.value("SELECT count(*) FROM liveness.epoch WHERE ended_at IS NULL"))

        await eventually(count, lambda epochs: epochs == 1 + LAPSES + LIVING, "everybody has an epoch")
        self.crowd.silence(FIRST)
        await eventually(self.reclaimed, bool, "the first one is dead")

    async def fall_silent(self) -> None:
        """Let those who are to die fall silent, one after the other."""
        for name in self._chance.sample(self._dying, len(self._dying)):
            self.crowd.silence(name)
            await asyncio.sleep(SPREAD_SECONDS / LAPSES)

    async def in_the_middle(self) -> int:
        """Wait until some of the lapses are reclaimed and others are not; return how many are."""
        threshold = self._chance.choice(MIDDLE)
        return await eventually(self.reclaimed, lambda count: count >= threshold, f"{threshold} are reclaimed")

    async def all_back(self) -> None:
        """Wait until all the dead's work is back and everything was told."""
        await eventually(self.reclaimed, lambda count: count > LAPSES, "all the dead's work is back")
        await self.stage.settled()

    async def judge(self, since: float, before: int, leader: Replica) -> Takeover:
        """Return what the history says of a leader that was hurt at `since`."""
        rows = await self.stage.rows(_COMMITS)
        former = f":{leader.process.pid}"
        by_others = [row["at"] for row in rows if row["at"] > since and former not in row["decided_by"]]
        taken_over = min(by_others, default=float("inf"))
        found = await self.violations()
        for row in rows:
            if row["at"] > taken_over and former in row["decided_by"]:
                late = f"at {clock(row['at'])}, after the takeover at {clock(taken_over)}"
                said = f"{row['decided_by']} ended an epoch {late}"
                found.append(Violation("leader", row["at"], said))
        return Takeover(before, taken_over - since, found)

    async def violations(self) -> list[Violation]:
        """What the checker finds, and what is plain here: the dead's work went back once each, nobody else's at all."""
        history = await read_history(self.stage)
        silent = {FIRST, *self._dying}
        # Of this crowd no process is known to the checker: whom it may be taken from is plain.
        found = [it for it in check(history) if it.rule not in ("living", "running")]
        taken = sorted(change.from_owner or "" for change in history.changes if change.to_status == "PENDING")
        if taken != sorted(silent):
            often = {name: taken.count(name) for name in silent.union(taken)}
            wrong = {name: count for name, count in often.items() if count != (name in silent)}
            found.append(
                Violation("living", history.at, f"work was taken as often as this, and not as it should: {wrong}")
            )
        return found


async def take_over(folder: Path, seed: int, hurt: Callable[[Pair, Replica], Awaitable[None]]) -> Takeover:
    """Run it once: `hurt` the leader in the middle of the lapses, and return what the other made of the rest."""
    pair = Pair(folder, seed)
    try:
        await pair.start()
        async with pair.crowd.beats(pair.stage.nats.port):
            await pair.known()
            silence = asyncio.create_task(pair.fall_silent())
            before = await pair.in_the_middle()
            leader = await pair.stage.leader()
            since = time.time()
            await hurt(pair, leader)
            await silence
            await pair.all_back()
        return await pair.judge(since, before, leader)
    finally:
        await pair.stage.stop()


async def killed(_: Pair, leader: Replica) -> None:
    """Kill the leader."""
    leader.process.kill()


async def paused(pair: Pair, leader: Replica) -> None:
    """Stop the leader with SIGSTOP until the other has taken over, and let it go on while there are lapses to come."""
    leader.process.pause()

    async def successor() -> object:
        return await pair.stage.value("SELECT holder NOT LIKE '%:' || $1 FROM liveness.leader", str(leader.process.pid))

    try:
        await eventually(successor, bool, "the other takes over")
    finally:
        leader.process.resume()

    async def lost() -> object:
        return leader.logged("lead_lost")

    # It has come to when it knows what it is now.
    await eventually(lost, bool, "the former leader finds that it leads no more")
