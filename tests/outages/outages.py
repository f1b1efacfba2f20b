"""The outages, each by its name: what is done to the stage, and when it is over.

`seconds` are of the clock: an outage is something that is away for so long, whatever anybody makes of it meanwhile.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from liveness.errors import EmbeddedError
from tests.outages.bounds import returns
from tests.outages.checker import Violation, check
from tests.outages.fleet import Life
from tests.outages.history import read_history
from tests.outages.stage import Stage, eventually
from tests.outages.wire import Wire, meanwhile

# Small enough that a flood of some megabytes fills it; a beat has some hundred bytes.
SLOW_CONSUMER: Final = "max_pending: 1MB"
FLOOD_PAYLOAD: Final = 32_768
TRICKLE: Final = 100_000

Outage = Callable[[Stage, float], AsyncGenerator[None, None]]


@dataclass(frozen=True)
class Outcome:
    """What became of an outage, in seconds.

    `during_back` is the way of what was held by who was killed in it, from when it was over.
    """

    outage: str
    lasted: float
    before_back: float
    during_back: float
    pieces: int
    violations: list[Violation]


async def nats_killed(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Kill nats-server, and start it again."""
    stage.nats.kill()
    yield
    await asyncio.sleep(seconds)
    await stage.nats.start()


async def nats_stopped(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Stop nats-server with SIGSTOP, and let it go on."""
    stage.nats.pause()
    try:
        yield
        await asyncio.sleep(seconds)
    finally:
        stage.nats.resume()


async def service_stopped(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Stop the service with SIGSTOP, and let it go on."""
    process = stage.replicas[0].process
    process.pause()
    try:
        yield
        await asyncio.sleep(seconds)
    finally:
        process.resume()


async def postgres_killed(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Kill Postgres, and start it again."""
    stage.postgres.kill()
    yield
    await asyncio.sleep(seconds)
    await stage.postgres.start()


async def postgres_read_only(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Make Postgres refuse every write, as a standby would, and take that back."""
    await set_read_only(stage, wanted=True)
    yield
    await asyncio.sleep(seconds)
    await set_read_only(stage, wanted=False)


async def set_read_only(stage: Stage, *, wanted: bool) -> None:
    """Set the whole server read-only or not, and wait until new transactions see it."""
    connection = await asyncpg.connect(stage.postgres.dsn, server_settings={"default_transaction_read_only": "off"})
    try:
        if wanted:
            await connection.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        else:
            await connection.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()

    async def seen() -> bool:
        return bool(await stage.value("SHOW default_transaction_read_only") == "on")

    await eventually(seen, lambda on: on == wanted, f"Postgres is read-only: {wanted}")


async def everything_restarted(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Kill NATS, Postgres and the service at once, and start them again; the workers live on."""
    stage.nats.kill()
    stage.postgres.kill()
    service = stage.replicas[0]
    service.process.kill()
    await service.process.gone()
    yield
    await asyncio.sleep(seconds)
    async with asyncio.TaskGroup() as starts:
        starts.create_task(stage.nats.start())
        starts.create_task(stage.postgres.start())
        starts.create_task(service.start())
    await service.ready()


async def started_while_read_only(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Kill the service and start it again while Postgres refuses every write: it waits, and works when it may."""
    service = stage.replicas[0]
    service.process.kill()
    await service.process.gone()
    await set_read_only(stage, wanted=True)
    await service.start()
    yield
    await asyncio.sleep(seconds)
    assert service.running, "\n".join(["the service has ended:", *service.process.lines()[-20:]])
    await set_read_only(stage, wanted=False)
    await service.ready()


async def subscription_too_slow(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Flood the heartbeats while the service's line is slow, until nats-server gives the service up as too slow."""
    line = stage.replicas[0].to_nats
    log = stage.nats.folder / "nats.log"
    cut_before = slow_consumers(log)
    line.throttle(TRICKLE)

    async def cut() -> int:
        return slow_consumers(log) - cut_before

    try:
        async with meanwhile(_flood(stage.nats.port)):
            yield
            await eventually(cut, bool, "nats-server cuts the slow subscription off")
            await asyncio.sleep(seconds)
    finally:
        line.throttle(0)


def slow_consumers(log: Path) -> int:
    """Count how often nats-server has cut a subscriber off for being too slow."""
    return log.read_text(errors="replace").count("Slow Consumer Detected")


async def _flood(port: int) -> None:
    wire = await Wire.open(port)
    padding = json.dumps({"ttl": 2, "padding": "x" * FLOOD_PAYLOAD}).encode()
    try:
        while True:
            for number in range(20):
                # By two names: three that fall silent together would be a storm.
                wire.publish(f"liveness.heartbeat.flood{number % 2}", padding)
            await wire.drained()
            # By the clock: some megabytes a second fill the buffers soon and leave the machine to the others.
            await asyncio.sleep(0.05)
    finally:
        await wire.close()


async def half_open_to_nats(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Stop forwarding between the service and NATS without closing; it is over when the service has connected anew."""
    line = stage.replicas[0].to_nats
    line.freeze()
    yield

    async def connections() -> int:
        return line.connections

    await eventually(connections, bool, "the service notices", 10 + seconds)


async def half_open_to_postgres(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Stop forwarding between the service and Postgres without closing; over when the service has connected anew."""
    line = stage.replicas[0].to_postgres
    line.freeze()
    yield

    async def connections() -> int:
        return line.connections

    await eventually(connections, bool, "the service notices", 10 + seconds)


async def pgbouncer_killed(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Kill pgbouncer, and start it again."""
    assert stage.pooler is not None
    stage.pooler.kill()
    yield
    await asyncio.sleep(seconds)
    await stage.pooler.start()


async def leader_killed(stage: Stage, seconds: float) -> AsyncGenerator[None, None]:
    """Kill the replica that leads; it is over when another leads. Then start it again."""
    leader = await stage.leader()
    leader.process.kill()
    await leader.process.gone()
    yield
    await asyncio.sleep(seconds)
    await stage.leader()
    await leader.start()


async def pooled(folder: Path, seconds: float) -> list[Outcome]:
    """Suffer what a pooler in transaction mode may make worse: two replicas, and every Postgres outage behind it."""
    stage = Stage(folder, pooled=True)
    try:
        await stage.start(replicas=2)
        return [await suffer(stage, outage, seconds) for outage in POOLED]
    finally:
        await stage.stop()


POOLED: Final = (pgbouncer_killed, leader_killed)
OUTAGES: Final[Mapping[str, Outage]] = {
    outage.__name__: outage
    for outage in (
        nats_killed,
        nats_stopped,
        service_stopped,
        postgres_killed,
        postgres_read_only,
        everything_restarted,
        started_while_read_only,
        subscription_too_slow,
        half_open_to_nats,
        half_open_to_postgres,
    )
}


async def suffer(stage: Stage, outage: Outage, seconds: float) -> Outcome:
    """Kill a worker, begin the outage, kill another in the middle of it, end it, and see what becomes of their work.

    Every worker that was killed is started again under its name in the end. Raises AssertionError when something does
    not come about at all.
    """
    await mend(stage)
    began = time.time()
    before, during = await _victims(stage)
    before.process.kill()
    async with stage.disturbed(outage.__name__) as disturbance:
        course = outage(stage, seconds)
        await anext(course)
        killing = asyncio.create_task(_kill_in_the_middle(during, seconds))
        try:
            await _rest(course)
        finally:
            await killing
    over = disturbance.end or 0.0
    await asyncio.gather(stage.work_is_back(before), stage.work_is_back(during))
    for life in (before, during):
        stage.fleet.start(life.worker)
    await stage.all_working()
    await stage.settled()
    history = await read_history(stage)
    back = [it for it in returns(history) if it.incarnation in (before.incarnation, during.incarnation)]

    for life in (before, during):
        assert any(it.incarnation == life.incarnation for it in back), f"{life.incarnation} held nothing when killed"

    return Outcome(
        outage=outage.__name__,
        lasted=over - disturbance.begin,
        before_back=max(it.after_death for it in back if it.incarnation == before.incarnation),
        during_back=max(it.after_quiet for it in back if it.incarnation == during.incarnation),
        pieces=len(back),
        violations=check(history, began),
    )


async def mend(stage: Stage) -> None:
    """Bring everything back that an outage which came to no good end has left behind; else do nothing."""
    for server in (stage.nats, stage.postgres):
        with contextlib.suppress(EmbeddedError):
            # It says so when it runs already.
            await server.start()
        server.resume()
    await set_read_only(stage, wanted=False)
    for replica in stage.replicas:
        replica.to_nats.throttle(0)
        replica.process.resume()
        if not replica.running:
            await replica.start()
        await replica.ready()
    for worker in {life.worker for life in stage.fleet.lives} - {life.worker for life in stage.fleet.living()}:
        stage.fleet.start(worker)
    await stage.all_working()


async def _victims(stage: Stage) -> tuple[Life, Life]:
    """Return two workers that hold work now and for a while yet."""

    async def holding() -> list[Life]:
        held = await stage.holding()
        return [life for life in stage.fleet.living() if len(held.get(life.incarnation, [])) > 1]

    found = await eventually(holding, lambda lives: len(lives) > 1, "two workers hold work")
    return found[0], found[1]


async def _kill_in_the_middle(life: Life, seconds: float) -> None:
    await asyncio.sleep(seconds / 2)
    life.process.kill()


async def _rest(course: Awaitable[None] | AsyncGenerator[None, None]) -> None:
    with contextlib.suppress(StopAsyncIteration):
        await anext(course)  # type: ignore[arg-type]
