"""When a start anew would help, and when not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from liveness.health import APART_SECONDS, STILL_SECONDS, Health
from liveness.rounds import Round


class Scene:
    """A duty that is done until the test lets it end, and a clock that the test moves."""

    def __init__(self) -> None:
        self.time = asyncio.get_running_loop().time()
        self.away = False
        self.steps: dict[asyncio.Task[None], float] = {}
        self.goes_on = asyncio.Event()
        self.begun = asyncio.Event()
        self.duty = Round("sweep", self._do, lambda: 3600.0)
        self.task = asyncio.create_task(self.duty.keep(), name="sweep")
        self.lasting = asyncio.create_task(self._last(), name="listening")
        self.health = Health(clock=lambda: self.time, waits=lambda: self.away, steps=self.steps)
        self.health.watch([self.lasting], [(self.duty, self.task)])

    def ills(self, *, after: float) -> list[str]:
        """Return what `/livez` says so many seconds later."""
        self.time += after
        return self.health.ills()

    async def _do(self) -> None:
        self.begun.set()
        await self.goes_on.wait()

    async def _last(self) -> None:
        await asyncio.Event().wait()


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """A duty that has begun what it does."""
    made = Scene()
    await made.begun.wait()
    yield made
    for task in (made.task, made.lasting):
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_duty_that_stands_still_is_found_by_two_looks(scene: Scene) -> None:
    """The first one may come when the whole process has just been resumed, and the duty had no turn yet."""
    assert scene.ills(after=0.0) == []
    assert scene.ills(after=STILL_SECONDS - 1.0) == []
    assert scene.ills(after=2.0) == []
    assert scene.ills(after=APART_SECONDS / 2) == []

    (ill,) = scene.ills(after=APART_SECONDS)

    assert ill.startswith("sweep: it has stood still for 60")
    assert scene.ills(after=1.0) != []


async def test_one_that_comes_around_between_two_looks_is_well(scene: Scene) -> None:
    """However long it took."""
    assert scene.ills(after=2 * STILL_SECONDS) == []
    scene.goes_on.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert scene.duty.under_way_since is None

    assert scene.ills(after=APART_SECONDS) == []


async def test_one_that_has_very_much_to_do_is_well(scene: Scene) -> None:
    """It makes steps in Postgres all the time."""
    for _ in range(20):
        scene.steps[scene.task] = scene.time
        assert scene.ills(after=STILL_SECONDS / 2) == []
    assert scene.ills(after=STILL_SECONDS) == []

    assert len(scene.ills(after=APART_SECONDS)) == 1


async def test_what_waits_for_a_server_that_is_away_is_no_reason(scene: Scene) -> None:
    """A new process would wait as well; and when it is back, the time counts anew only for the second look."""
    scene.away = True
    assert scene.ills(after=2 * STILL_SECONDS) == scene.ills(after=STILL_SECONDS) == []
    scene.away = False
    assert scene.ills(after=0.0) == []
    assert len(scene.ills(after=APART_SECONDS)) == 1


async def test_a_task_that_has_ended_though_it_goes_on_for_ever_is_found_at_once(scene: Scene) -> None:
    """A cancellation that leaks out of a library ends the task and not the service."""
    scene.lasting.cancel()
    await asyncio.wait({scene.lasting})

    assert scene.ills(after=0.0) == ["listening: it has ended, and the service has not"]


async def test_a_service_that_stops_is_well(scene: Scene) -> None:
    """Its duties end one after the other."""
    scene.health.stopping = True
    scene.task.cancel()
    await asyncio.wait({scene.task})

    assert scene.ills(after=10 * STILL_SECONDS) == []
