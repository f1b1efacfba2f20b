"""A worker that restarts under its old name: its former life's work is back, its new life's is its own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.outages.checker import check
from tests.outages.fleet import Life
from tests.outages.history import read_history
from tests.outages.stage import Stage, eventually
from tests.outages.wire import Wire, meanwhile

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Longer than any of these tests: what is held stays held.
FOR_EVER = (600.0, 600.0)
INTERVAL = 0.4


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    """Servers and a service; each test has a worker name of its own, and the others' beats go on."""
    made = Stage(tmp_path_factory.mktemp("stage"), workers=3)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def wire(stage: Stage) -> AsyncIterator[Wire]:
    """A connection to NATS by hand."""
    made = await Wire.open(stage.nats.port)
    yield made
    await made.close()


class Process:
    """What a process of a worker says, as seconds of its own life go by; it beats until it is told to stop."""

    def __init__(self, wire: Wire, worker: str, incarnation: str, *, with_uptime: bool = True) -> None:
        self.superseded: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.incarnation = incarnation
        self._wire = wire
        self._worker = worker
        self._with_uptime = with_uptime
        self._began = asyncio.get_running_loop().time()
        wire.subscribe(f"liveness.superseded.{worker}", lambda _, data: self.superseded.put_nowait(json.loads(data)))

    @property
    def says(self) -> dict[str, Any]:
        """What a beat of it says now."""
        said: dict[str, Any] = {"incarnation": self.incarnation, "ttl": 2, "interval": INTERVAL}
        if self._with_uptime:
            said["uptime"] = asyncio.get_running_loop().time() - self._began
        return said

    def beats(self) -> contextlib.AbstractAsyncContextManager[None]:
        """Beat while the body runs."""

        async def beat() -> None:
            while True:
                self._wire.publish(f"liveness.heartbeat.{self._worker}", json.dumps(self.says).encode())
                # Nothing is waited for: the clock is what a worker beats by.
                await asyncio.sleep(INTERVAL)

        return meanwhile(beat())


async def claim(stage: Stage, worker: str) -> str:
    """Put a piece of work into the host's table that `worker` claimed a moment ago, and return its id."""
    # No process of ours ends and begins again within milliseconds of a claim, as these would.
    claimed = (
        "INSERT INTO workflow_execution (worker_id, claimed_by, status, queue, updated_at)"
        " VALUES ($1, $1, 'RUNNING', 'held', now() - interval '0.2 s') RETURNING id::text"
    )
    return str(await stage.value(claimed, worker))


async def state(stage: Stage, work: str) -> tuple[str, str | None]:
    """Status and owner of a piece of work."""
    row = (await stage.rows("SELECT status, worker_id FROM workflow_execution WHERE id = $1::uuid", work))[0]
    return row["status"], row["worker_id"]


async def known(stage: Stage, worker: str, incarnation: str) -> int:
    """Wait until the service has granted an epoch to that incarnation, and return it."""

    async def epoch() -> Any:
        return await stage.value(
            "SELECT epoch FROM liveness.epoch WHERE worker = $1 AND incarnation = $2 AND ended_at IS NULL",
            worker,
            incarnation,
        )

    return int(await eventually(epoch, bool, f"{incarnation} is known"))


async def back(stage: Stage, work: str) -> None:
    """Wait until a piece of work is PENDING, its owner cleared."""
    await eventually(lambda: state(stage, work), lambda seen: seen == ("PENDING", None), f"{work} is back")


async def a_ttl_later(stage: Stage) -> None:
    """Wait until the service has listened for more than a ttl: until it gave back somebody's work who died just now."""
    name = f"clock{len(stage.fleet.lives)}"
    await stage.rows("INSERT INTO worker (worker_name) VALUES ($1)", name)
    life = stage.fleet.start(name, holds=FOR_EVER)
    await stage.kill_holding(life)
    await stage.work_is_back(life)


def logged(stage: Stage, event: str, worker: str) -> Callable[[], Any]:
    """Return a look at the service's lines of `event` that speak of `worker`."""

    async def look() -> list[dict[str, Any]]:
        return [line for line in stage.replicas[0].logged(event) if line.get("worker") == worker]

    return look


async def no_violations(stage: Stage) -> None:
    """The checker finds nothing, in the rows of real processes; the hand-made claims here are not theirs."""
    await stage.settled()
    by_hand = {row["id"] for row in await stage.rows("SELECT id::text FROM workflow_execution WHERE queue = 'held'")}
    violations = [it for it in check(await read_history(stage)) if not any(work in it.sentence for work in by_hand)]
    assert not violations, "\n".join(map(str, violations))


async def restart(stage: Stage, worker: str, *, hello: bool) -> tuple[Life, Life, list[str], list[str]]:
    """Kill a process that holds work, start the next of its name at once; return both and what each claimed."""
    await stage.rows("INSERT INTO worker (worker_name) VALUES ($1)", worker)
    first = stage.fleet.start(worker, holds=FOR_EVER, hello=hello)
    await known(stage, worker, first.incarnation)
    await eventually(stage.holding, lambda held: len(held.get(first.incarnation, [])) == 2, "the first holds work")
    first.process.kill()
    former = (await stage.holding())[first.incarnation]
    second = stage.fleet.start(worker, holds=FOR_EVER, hello=hello)
    await eventually(stage.holding, lambda held: len(held.get(second.incarnation, [])) == 2, "the second claims work")
    return first, second, former, (await stage.holding())[second.incarnation]


async def test_heartbeats_never_pause(stage: Stage) -> None:
    """The next process beats within the ttl and says since when: the former one's work goes back, its own stays."""
    first, second, former, _ = await restart(stage, "stateful", hello=False)
    await stage.work_is_back(first)
    await a_ttl_later(stage)

    # What the former life held may have been claimed since, by the second one too.
    held = (await stage.holding())[second.incarnation]
    assert len(held) == 2
    taken = await stage.rows("SELECT id, worker FROM liveness.reclaim WHERE worker = 'stateful'")
    assert sorted(row["id"] for row in taken) == sorted(former)
    ended = await stage.rows("SELECT incarnation, reason FROM liveness.expiration WHERE worker = 'stateful'")
    assert [tuple(row) for row in ended] == [(first.incarnation, "restarted")]
    second.process.kill()
    await stage.work_is_back(second)
    await no_violations(stage)


async def test_hello(stage: Stage) -> None:
    """The next process says hello: its answer comes when the former one's work is back, and it loses nothing."""
    first, second, former, _ = await restart(stage, "polite", hello=True)
    answer = next(note for note in second.notes() if note["what"] == "hello")
    epoch = json.loads(answer["answer"])["epoch"]

    # By the time of the answer, and it was the proof.
    changes = (
        "SELECT extract(epoch FROM at)::float AS at, id::text FROM history WHERE from_life = $1 AND to_owner IS NULL"
    )
    went = await stage.rows(changes, first.incarnation)
    assert sorted(row["id"] for row in went) == sorted(former)
    assert max(row["at"] for row in went) < answer["t"]
    ended = await stage.rows("SELECT incarnation, reason FROM liveness.expiration WHERE worker = 'polite'")
    assert [tuple(row) for row in ended] == [(first.incarnation, "restarted")]
    await a_ttl_later(stage)
    assert len((await stage.holding())[second.incarnation]) == 2
    assert await known(stage, "polite", second.incarnation) == epoch
    second.process.kill()
    await stage.work_is_back(second)
    await no_violations(stage)


async def test_without_uptime(stage: Stage, wire: Wire) -> None:
    """A new incarnation that does not say since when takes nothing from the former one, and the log says why."""
    async with Process(wire, "vague", "first").beats():
        await known(stage, "vague", "first")
        work = await claim(stage, "vague")
    async with Process(wire, "vague", "second", with_uptime=False).beats():
        found = await eventually(logged(stage, "incarnation_without_uptime", "vague"), bool, "the log says why")
        assert "hello" in found[0]["complaint"]
        await a_ttl_later(stage)
        assert await state(stage, work) == ("RUNNING", "vague")
    # Nobody holds it for ever all the same.
    await back(stage, work)


async def test_beats_of_a_former_incarnation(stage: Stage, wire: Wire) -> None:
    """A former incarnation is told that it is over, and its beats keep nothing alive."""
    first = Process(wire, "undead", "first")
    async with first.beats():
        former_epoch = await known(stage, "undead", "first")
        work = await claim(stage, "undead")
    second = Process(wire, "undead", "second")
    async with second.beats():
        await wire.request("liveness.hello.undead", json.dumps(second.says).encode())
        assert await state(stage, work) == ("PENDING", None)
        epoch = await known(stage, "undead", "second")
        other = await claim(stage, "undead")
    async with first.beats():
        told = await asyncio.wait_for(first.superseded.get(), 20)
        while told["incarnation"] is None:
            told = await asyncio.wait_for(first.superseded.get(), 20)
        assert told == {"epoch": former_epoch, "incarnation": "first", "new_epoch": epoch, "new_incarnation": "second"}
        # The second is silent, and only the first still beats.
        await back(stage, other)


async def test_two_that_keep_beating(stage: Stage, wire: Wire) -> None:
    """Two processes that beat under one name are a conflict: loud, and nothing is taken from either."""
    async with Process(wire, "twins", "first").beats():
        await known(stage, "twins", "first")
        work = await claim(stage, "twins")
        async with Process(wire, "twins", "second").beats():
            other = await claim(stage, "twins")
            found = await eventually(logged(stage, "conflict", "twins"), bool, "the log is loud")
            assert found[0]["level"] == "error"
            # Two beats of the second agree on its beginning by then.
            await a_ttl_later(stage)
            await a_ttl_later(stage)
            assert await state(stage, work) == await state(stage, other) == ("RUNNING", "twins")
    # When both are silent, both are dead.
    await back(stage, work)
    await back(stage, other)
