"""One run of chaos: the stage, faults from one seed, the quiet after them, and what the checker makes of it."""

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.agreement import (
    Counts,
    Readings,
    account_of,
    committed,
    counted,
    disagreements,
    facts_of,
    not_silenced,
    status_of,
)
from tests.chaos.cable import Cable
from tests.chaos.faults import FAULTS, Chaos, serves, stand_still
from tests.outages.bounds import GRACE_SECONDS, returns
from tests.outages.checker import Violation, check
from tests.outages.history import History, clock, read_history
from tests.outages.proxy import Proxy
from tests.outages.stage import Replica, Stage, eventually

WORKERS: Final = 8
# Of those, so many reach NATS by a line that can be hurt.
BY_LINE: Final = 2
AT_ONCE: Final = 3
# Between the beginnings of two faults.
CALM: Final = (0.1, 2.5)
# Between two looks at the term, and at whether a replica has ended by itself.
WATCH_SECONDS: Final = 0.25
SUPERVISE_SECONDS: Final = 1.0
# In which all tell the same once all is quiet: a beat may be late for a moment, and a count a moment behind its commit.
AGREE_SECONDS: Final = 10.0


@dataclass
class Summary:
    """What there is to say of a run."""

    seed: int
    seconds: float
    faults: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)
    lateness: list[float] = field(default_factory=list)
    after_death: list[float] = field(default_factory=list)
    takeovers: int = 0
    violations: list[Violation] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The summary as people read it."""
        said = [f"seed {self.seed}, {self.seconds:.0f} s of faults"]
        said += [f"  {count:5} {kind}" for kind, count in sorted(self.faults.items())]
        said += [f"  {count:5} {what}" for what, count in self.counts.items()]
        said.append(f"  {self.takeovers:5} takeovers")
        for what, values in (("after the death", self.after_death), ("after the last disturbance", self.lateness)):
            if values:
                middle, most = statistics.median(values), max(values)
                said.append(f"  work of killed workers back {what}: p50 {middle:.2f} s, max {most:.2f} s")
        said += [str(violation) for violation in self.violations]
        said.append(f"  {len(self.violations):5} violations")
        return said


async def run(
    folder: Path, seconds: float, seed: int, say: Callable[[str], None], shards: int = 0, *, coda: bool = False
) -> Summary:
    """Make chaos for so long, then quiet, and check; with two replicas, or two of each shard.

    `coda`: when all is quiet, one worker is silenced and one is killed, and what the metrics count of it is compared.
    """
    chance = random.Random(seed)
    stage = Stage(folder, workers=WORKERS * max(shards, 1), seed=seed, shards=shards)
    cable: Cable | None = Cable()
    complaint = await cable.lay() if cable is not None else None
    if complaint is not None:
        say(f"no cable will be cut: {complaint}")
        cable = None
    chaos = Chaos(stage, chance, cable)
    try:
        await stage.start(replicas=2)
        if cable is not None:
            chaos.cut_off = Replica("replica-by-cable", stage, cable.inside, cable.near, stage.shards[0])
            stage.replicas.append(chaos.cut_off)
            await chaos.cut_off.start()
            await serves(chaos.cut_off)
        await _by_line(chaos)
        summary = Summary(seed, seconds)
        readings = Readings(stage)
        watching = _watch(stage, summary), _supervise(stage, say), readings.go_on()
        tasks = [asyncio.create_task(duty) for duty in watching]
        await _strike(chaos, seconds, summary, say)
        try:
            await _quiet(chaos)
            if not shards:
                await _agree(stage)
                if coda:
                    await _count_right(chaos)
        except AssertionError as error:
            # What came about so far is worth the more.
            summary.violations.append(Violation("quiet", time.time(), str(error)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        _tell(await read_history(stage), summary)
        summary.violations += [Violation("metrics", time.time(), fall) for fall in readings.falls]
        summary.counts["readings of /metrics"] = readings.taken
        summary.violations += _ended_by_themselves(stage)
    finally:
        for task in list(chaos.restarts):
            task.cancel()
        await stage.stop()
        if chaos.worker_line is not None:
            await chaos.worker_line.stop()
        if cable is not None:
            await cable.remove()
    return summary


async def _by_line(chaos: Chaos) -> None:
    """Lead some of the workers, from their next lives on, by a proxy of their own."""
    stage = chaos.stage
    chaos.worker_line = Proxy(stage.nats.port)
    await chaos.worker_line.start()
    for life in stage.fleet.living()[:BY_LINE]:
        chaos.by_line.add(life.worker)
        life.process.kill()
        await life.process.gone()
        await chaos.restart_later(life.worker)


async def _strike(chaos: Chaos, seconds: float, summary: Summary, say: Callable[[str], None]) -> None:
    """Begin one fault after the other, several at once, and return when all are undone."""
    until = time.monotonic() + seconds
    under_way: dict[asyncio.Task[bool], str] = {}
    names = list(FAULTS)
    weights = [fault.weight for fault in FAULTS.values()]
    while time.monotonic() < until:
        name = chaos.chance.choices(names, weights)[0]
        fault = FAULTS[name]
        lasting = chaos.chance.uniform(fault.shortest, fault.longest)
        calm = chaos.chance.uniform(*CALM)
        busy = fault.resource in under_way.values() or (not fault.resource and len(under_way) >= AT_ONCE)
        if not busy and len(under_way) < AT_ONCE:
            task = asyncio.create_task(_one(chaos, name, lasting, summary, say))
            under_way[task] = fault.resource or name
        # The pace of the faults, from the seed; nothing is waited for.
        await asyncio.sleep(calm)
        for task in [task for task in under_way if task.done()]:
            task.result()
            del under_way[task]
    await asyncio.gather(*under_way)


async def _one(chaos: Chaos, name: str, lasting: float, summary: Summary, say: Callable[[str], None]) -> bool:
    begun = time.time()
    struck = await FAULTS[name].strike(chaos, lasting)
    if struck:
        summary.faults[name] += 1
        say(f"{time.strftime('%H:%M:%S', time.gmtime(begun))} {name}, {time.time() - begun:.1f} s")
    return struck


async def _quiet(chaos: Chaos) -> None:
    """Let everybody come back, wait for as long as the dead's work may take, and until everything is told."""
    stage = chaos.stage
    if chaos.restarts:
        await asyncio.gather(*chaos.restarts)
    for replica in stage.replicas:
        await serves(replica)
    await stage.all_working()
    # The bound counts from the last disturbance; what is not back by then is late, and the checker says so. All of it,
    # although the dead's work may be back sooner: what is taken wrongly in the wake of a disturbance is taken now.
    await asyncio.sleep(stage.ttl + GRACE_SECONDS)
    await stage.settled()


async def _agree(stage: Stage) -> None:
    """Wait until replicas, their pages, `liveness status` and Postgres tell the same."""

    async def look() -> list[str]:
        accounts = [await account_of(replica) for replica in stage.replicas]
        return disagreements(accounts, await status_of(stage), await facts_of(stage))

    await eventually(look, lambda said: not said, "all tell the same", AGREE_SECONDS)


async def _count_right(chaos: Chaos) -> None:
    """Silence one worker beyond its ttl, kill another, and wait until the metrics have counted what was committed."""
    stage = chaos.stage
    accounts = [await account_of(replica) for replica in stage.replicas]
    before, there = counted(accounts), await committed(stage)
    silenced, killed = chaos.chance.sample(chaos.lives(), 2)
    await stand_still(silenced.process, 2 * stage.ttl)
    killed.process.kill()
    await killed.process.gone()
    await chaos.restart_later(killed.worker)
    await _quiet(chaos)

    async def look() -> tuple[Counts, Counts]:
        accounts = [await account_of(replica) for replica in stage.replicas]
        return counted(accounts).since(before), (await committed(stage)).since(there)

    counts, _ = await eventually(look, lambda both: both[0] == both[1], "metrics count what is there", AGREE_SECONDS)
    assert counts.recovered["lapsed"], f"{silenced.incarnation} was silenced, and nobody counts that it is heard again"


TERMS: Final = """
    SELECT sum(term)::bigint
    FROM (SELECT term FROM liveness.leader UNION ALL SELECT term FROM liveness.share_leader) AS every
"""


async def _watch(stage: Stage, summary: Summary) -> None:
    """Count the terms that begin."""
    term = 0
    while True:
        try:
            now = await stage.value(TERMS)
        except Exception:  # noqa: BLE001 - Postgres is away, in whatever way
            now = term
        summary.takeovers += max(0, now - term) if term else 0
        term = now
        # A sample now and then is enough: terms only grow, and each one since the last is counted.
        await asyncio.sleep(WATCH_SECONDS)


async def _supervise(stage: Stage, say: Callable[[str], None]) -> None:
    """Start a replica again that ended by itself, as an orchestrator would."""
    while True:
        # An orchestrator looks now and then, and does not mind to be late.
        await asyncio.sleep(SUPERVISE_SECONDS)
        for replica in stage.replicas:
            if not replica.running and not replica.process.hurt:
                say(f"{replica.name} ended by itself")
                async with stage.disturbed(f"{replica.name} ended by itself"):
                    await replica.start()


def _ended_by_themselves(stage: Stage) -> list[Violation]:
    return [
        Violation(
            "service",
            process.ended or 0.0,
            f"{replica.name} (pid {process.pid}) ended by itself at {clock(process.ended or 0.0)} with exit code"
            f" {process.exit_code}: {' | '.join(process.lines()[-3:])}",
        )
        for replica in stage.replicas
        for process in replica.runs
        if not process.running and not process.hurt
    ]


def _tell(history: History, summary: Summary) -> None:
    summary.violations += check(history)
    summary.violations += [Violation("recovered", *found) for found in not_silenced(history)]
    back = returns(history)
    summary.lateness = [it.after_quiet for it in back]
    summary.after_death = [it.after_death for it in back]
    changes = history.changes
    summary.counts = {
        "lives of workers": len(history.lives),
        "claims": sum(change.to_status == "RUNNING" for change in changes),
        "completions": sum(change.to_status == "COMPLETED" for change in changes),
        "reclaims": len(history.reclaims),
        "epochs": len(history.epochs),
        "epochs that ended": len(history.expirations),
        "events": len(history.events),
    }
    reasons = Counter(row["reason"] for row in history.expirations)
    recovered = Counter(
        event["data"]["former_reason"] for event in history.events if event["type"] == "worker.recovered"
    )
    summary.counts |= {f"recovered from {reason}": count for reason, count in sorted(recovered.items())}
    summary.counts |= {f"epochs that ended because {reason}": count for reason, count in sorted(reasons.items())}
