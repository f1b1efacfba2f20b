"""What a picture says of leases, of parts that nobody moves."""

from types import SimpleNamespace
from typing import Any

import pytest

from liveness.answers import StatusRequest
from liveness.cli import status
from liveness.cli.terminal import console_for
from liveness.errors import DatabaseAwayError
from liveness.lease import Proof
from liveness.page.rendering import View, status_part
from liveness.snapshot import Snapshots
from liveness.suspects import Suspect
from liveness.why import standing
from tests.unit.makers import live
from tests.unit.test_metrics import Scene


@pytest.fixture
async def scene() -> Scene:
    """A service that follows, and whose Postgres is away."""

    async def depth() -> Any:
        raise DatabaseAwayError("no connection")

    made = Scene()
    made.store.outbox = SimpleNamespace(depth=depth)
    return made


async def test_who_follows_shows_the_dead_as_dead(scene: Scene) -> None:
    """As the one that acts does, whose word it has not yet: by their deadlines; and no dead one as a suspect."""
    parts = scene.parts
    assert parts is not None
    for name, ttl in (("lives", 10.0), ("suspect", 10.0), ("dead", 1.0), ("said so", 10.0)):
        live(parts.book, name, ttl=ttl)
    parts.book.end("said so", 0.0, Proof("released"))
    for name in ("suspect", "dead"):
        parts.suspects.suspected[name] = Suspect("silent", 0.0, 0.0)
    parts.hearing.now = 2.0
    parts._look(2.0)

    answer = await Snapshots(parts, 60.0).take(StatusRequest(), [])

    assert {worker.worker: worker.state for worker in answer.workers} == {
        "lives": "live", "suspect": "suspect", "dead": "lapsed", "said so": "ending",
    }  # fmt: skip
    assert (answer.ending, answer.suspects, answer.leads) == (2, ["suspect"], False)
    told = standing(parts, [], "dead")
    assert (told.state, told.reason, told.overdue, told.suspected) == ("lapsed", "lapsed", 1.0, None)


async def test_what_only_postgres_knows_is_not_made_up(scene: Scene) -> None:
    """While it is away nobody knows what a worker runs; 0 would say that it is idle."""
    parts = scene.parts
    assert parts is not None
    live(parts.book, "w", ttl=10.0)

    answer = await Snapshots(parts, 60.0).take(StatusRequest(), [])

    assert (answer.postgres, answer.workers[0].running) == (False, None)
    assert 'data-label="running">?<' in status_part(answer, View())
    console = console_for()
    with console.capture() as printed:
        for part in status.parts(answer):
            console.print(part)
    assert " ? " in printed.get()
