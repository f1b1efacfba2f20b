"""What a replica says of a pause, and when; and how an operator says for how long."""

from collections.abc import Mapping, Sequence

import click
import pytest
from structlog.testing import capture_logs

from liveness.answers import Pause, Swept
from liveness.cli.pause import Span
from liveness.errors import DatabaseAwayError
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.pausing import REMIND_SECONDS, Pausing
from liveness.storms import Storms
from tests.unit.makers import lease_of, live


class Replica:
    """One that looks at a pause which the test makes, at a time that the test lets pass."""

    def __init__(self, *, max_hold: float = 0.0) -> None:
        self.time = 0.0
        self.leads = True
        self.found: tuple[Pause | None, str | None] = (None, None)
        self.away = False
        self.book = LeaseTable(10.0)
        self.hearing = Hearing(0.0, max_gap=0.5)
        self.storms = Storms(max_hold=max_hold, shuffle=lambda _: None)
        self.pausing = Pausing(
            read=self._read,
            running=self._running,
            book=self.book,
            hearing=self.hearing,
            storms=self.storms,
            clock=lambda: self.time,
            leading=lambda: self.leads,
        )

    async def _read(self) -> tuple[Pause | None, str | None]:
        if self.away:
            raise DatabaseAwayError("away")
        return self.found

    async def _running(self, names: Sequence[str]) -> Mapping[str, int]:
        return dict.fromkeys(names, 3)

    async def look(self, seconds: float = 0.0) -> list[str]:
        """Let time pass, look, and return the events that were logged."""
        self.time += seconds
        with capture_logs() as logs:
            await self.pausing.run_once()
        return [line["event"] for line in logs]


PAUSE = Pause("ops@desk", "2026-11-27T03:12:04Z", 5.0, "a test")


async def test_it_is_said_once_and_again_every_ten_minutes_until_somebody_resumes() -> None:
    """And once more when another one gives another reason."""
    replica = Replica()
    assert await replica.look() == []
    replica.found = PAUSE, None

    assert await replica.look() == ["paused"]
    assert await replica.look(REMIND_SECONDS - 1.0) == []
    assert await replica.look(1.0) == ["still_paused"]
    replica.found = Pause("night shift", PAUSE.since, 700.0, "longer"), None
    assert await replica.look(1.0) == ["paused"]
    assert replica.pausing.seconds() == 700.0
    replica.found = None, "ops@desk"
    assert await replica.look(1.0) == ["resumed"]
    assert (replica.pausing.on, replica.pausing.seconds(), replica.pausing.lines()) == (False, 0.0, [])


async def test_while_postgres_is_away_it_goes_on() -> None:
    """What was known last holds, and its age grows."""
    replica = Replica()
    replica.found = PAUSE, None
    await replica.look()
    replica.away = True
    with pytest.raises(DatabaseAwayError):
        await replica.look(7.0)

    assert replica.pausing.on
    assert replica.pausing.seconds() == 12.0


async def test_what_would_end_is_told_once_by_the_one_that_acts() -> None:
    """A life that lapses while it is paused; not one that waits for its epoch, or is heard again."""
    replica = Replica()
    replica.found = PAUSE, None
    live(replica.book, "w1")
    live(replica.book, "w2")
    replica.book.beat("w3", 0.0, Heartbeat())
    replica.book.lapse(10.0)
    replica.book.beat("w2", 10.0, Heartbeat())
    replica.leads = False
    assert await replica.look() == ["paused"]
    replica.leads = True

    assert await replica.look() == ["would_end"]
    assert await replica.look() == []
    assert replica.pausing.evidence("w1", 1) == {"paused": "held, paused by ops@desk since 2026-11-27T03:12:04Z"}
    assert replica.pausing.evidence("w1", 2) == replica.pausing.evidence("w2", 1) == {}
    replica.found = None, None
    await replica.look()
    assert replica.pausing.evidence("w1", 1)
    replica.book.ended("w1", 1, 11.0)
    await replica.look()
    assert replica.pausing.evidence("w1", 1) == {}


async def test_whom_a_storm_would_have_let_go_is_held_by_the_pause() -> None:
    """Not who is held by the storm yet."""
    replica = Replica(max_hold=600.0)
    for worker in ("w1", "w2", "w3"):
        live(replica.book, worker)
        replica.storms.heard(lease_of(replica.book, worker), "n1", 0.0)
    replica.storms.judge(replica.book, replica.book.lapse(10.0), 10.0)
    replica.found = PAUSE, None
    replica.hearing.now = 609.0
    assert await replica.look() == ["paused"]
    replica.hearing.now = 610.0

    assert await replica.look() == ["would_end"] * 3


def test_what_a_sweep_would_take_is_told_once_for_each_pause() -> None:
    """By name and reason."""
    pausing = Replica().pausing
    swept = Swept(dry_run=True, stale=["w1"], orphaned=["w2"])
    with capture_logs() as logs:
        pausing.note(swept)
        pausing.note(swept)
        pausing.note(Swept())
        pausing.note(swept)

    assert [(line["worker"], line["reason"]) for line in logs] == [("w1", "stale"), ("w2", "orphaned")] * 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("1.5m", 90.0), ("2h", 7_200.0), ("30d", 2_592_000.0)]
)
def test_a_span_of_time(text: str, seconds: float) -> None:
    """In seconds, or with a unit."""
    assert Span()(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "soon", "1w", "31d", "1h30m", "nan", "inf"])
def test_no_span_of_time(text: str) -> None:
    """What is none is wrong use, and says how one is written."""
    with pytest.raises(click.BadParameter, match="as in 90s, 15m, 2h or 1d"):
        Span()(text)
