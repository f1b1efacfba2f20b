"""How much news waits, and when Postgres is asked for it."""

from types import SimpleNamespace
from typing import cast

import pytest

from liveness.backlog import Backlog
from liveness.relay import Relay
from liveness.store import Store


class Scene:
    """An outbox of which the test says how much is in it, and a relay of which it says what that has seen."""

    def __init__(self) -> None:
        self.time, self.asked, self.waits = 100.0, 0, (3, 2.5)
        self.relay = SimpleNamespace(emptied=False)
        store = SimpleNamespace(outbox=SimpleNamespace(depth=self._depth))
        self.backlog = Backlog(relay=cast("Relay", self.relay), store=cast("Store", store), clock=lambda: self.time)

    async def _depth(self) -> tuple[int, float]:
        self.asked += 1
        return self.waits


@pytest.fixture
def scene() -> Scene:
    """Three events wait, the oldest for 2.5 s."""
    return Scene()


async def test_the_oldest_grows_older_between_two_questions(scene: Scene) -> None:
    """An outage of Postgres does not make it young."""
    assert await scene.backlog.run_once() == 3
    scene.time += 10.0

    assert (scene.backlog.events, scene.backlog.oldest) == (3, 12.5)
    assert scene.asked == 1


async def test_nobody_is_asked_where_the_relay_has_seen_the_end(scene: Scene) -> None:
    """Which is nearly always; and what waited before is not remembered."""
    await scene.backlog.run_once()
    scene.relay.emptied = True
    assert (scene.backlog.events, scene.backlog.oldest) == (0, 0.0)
    assert await scene.backlog.run_once() == 0
    scene.relay.emptied = False

    assert (scene.backlog.events, scene.backlog.oldest) == (0, 0.0)
    assert scene.asked == 1
