"""How a duty is repeated."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import pytest

from liveness.errors import DatabaseAwayError, DatabaseRefusedError, NotLeaderError, PausedError
from liveness.rounds import BACKOFF_LEAST, BACKOFF_MOST, Away, Round, failing

SOON = 5.0
NEVER = 3600.0


class Duty:
    """A duty that notes when it is done, and raises what it is told to."""

    def __init__(self) -> None:
        self.times = 0
        self.raises: list[BaseException] = []
        self.done = asyncio.Event()

    async def run_once(self) -> None:
        """Do it."""
        self.times += 1
        self.done.set()
        if self.raises:
            raise self.raises.pop(0)

    async def again(self) -> None:
        """Wait until it is done once more."""
        async with asyncio.timeout(SOON):
            await self.done.wait()
        self.done.clear()


@pytest.fixture
def duty() -> Duty:
    """Done never yet."""
    return Duty()


@contextlib.asynccontextmanager
async def kept(
    duty: Duty, interval: float = NEVER, may_run: Callable[[], bool] = lambda: True
) -> AsyncIterator[tuple[Round, asyncio.Task[None]]]:
    """Keep a round of `duty`, and stop it in the end."""
    one = Round("duty", duty.run_once, lambda: interval, may_run=may_run)
    task = asyncio.create_task(one.keep())
    try:
        yield one, task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def settle() -> None:
    """Let everything that can go on now go on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_duty_is_repeated(duty: Duty) -> None:
    """At once when its interval is over."""
    async with kept(duty, 0.0):
        await duty.again()
        await duty.again()


async def test_a_wake_up_makes_the_next_time_come_at_once(duty: Duty) -> None:
    """And one that comes while the duty is done is not lost."""
    async with kept(duty) as (one, _):
        await duty.again()
        await settle()
        assert duty.times == 1
        one.wake()
        await duty.again()
        await settle()
        assert duty.times == 2


async def test_a_cancellation_that_comes_with_a_wake_up_is_heeded(duty: Duty) -> None:
    """`asyncio.wait_for` of Python 3.11 would swallow it, and the duty go on for ever."""
    async with kept(duty) as (one, task):
        await duty.again()
        await settle()
        one.wake()
        # The wait is over and the task not yet told: both come in one turn of the loop.
        await asyncio.sleep(0)
        task.cancel()
        await settle()
        assert task.cancelled()


async def test_a_wake_up_while_the_duty_is_done_counts_for_the_next_time(duty: Duty) -> None:
    """What woke it may have come too late to be seen."""
    woken = asyncio.Event()
    times = 0

    async def run_once() -> None:
        nonlocal times
        times += 1
        if times == 1:
            woken.set()
        duty.done.set()

    task = asyncio.create_task(Round("duty", run_once, lambda: NEVER, woken).keep())
    await duty.again()
    await duty.again()
    await settle()
    assert times == 2
    task.cancel()


async def test_a_duty_that_may_not_run_waits_until_it_may(duty: Duty) -> None:
    """It is asked each time; a wake-up lets it look at once."""
    leads = False
    async with kept(duty, may_run=lambda: leads) as (one, _):
        await settle()
        one.wake()
        await settle()
        assert duty.times == 0
        leads = True
        one.wake()
        await duty.again()


async def test_a_lead_that_was_lost_under_way_is_no_failure(duty: Duty) -> None:
    """Whoever has it does what is left; here the duty waits for its turn, and does not back off."""
    duty.raises = [NotLeaderError("over")]
    async with kept(duty) as (one, _):
        await duty.again()
        await settle()
        assert (one.failing_since, duty.times) == (None, 1)
        one.wake()
        await duty.again()


@pytest.mark.parametrize("error", [DatabaseAwayError("away"), DatabaseRefusedError("refused")])
async def test_an_outage_is_waited_for_with_longer_and_longer_pauses(
    duty: Duty, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the longest, whatever wakes it meanwhile; afterwards all is as before."""
    pauses: list[float] = []
    spreads: list[tuple[float, float]] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        # Not a mere turn of the loop.
        pauses.extend([seconds] if seconds else [])
        await sleep(0)

    def spread(least: float, most: float) -> float:
        spreads.append((least, most))
        return most

    duty.raises = [error] * 5
    async with kept(duty) as (one, _):
        monkeypatch.setattr(asyncio, "sleep", pause)
        monkeypatch.setattr(random, "uniform", spread)
        failing = False
        while duty.times < 6:
            one.wake()
            await duty.again()
            failing = failing or one.failing_since is not None
        monkeypatch.undo()
        await settle()

        assert failing
        assert one.failing_since is None
        assert pauses == [BACKOFF_LEAST, 2 * BACKOFF_LEAST, 4 * BACKOFF_LEAST, BACKOFF_MOST, BACKOFF_MOST]
        assert set(spreads) == {(0.5, 1.0)}


async def test_a_stop_lets_what_is_under_way_end(duty: Duty) -> None:
    """And nothing begins after it."""
    going_on = asyncio.Event()

    async def run_once() -> None:
        duty.times += 1
        duty.done.set()
        await going_on.wait()

    one = Round("duty", run_once, lambda: 0.0)
    task = asyncio.create_task(one.keep())
    await duty.again()
    one.stop()
    await settle()
    assert not task.done()
    going_on.set()
    async with asyncio.timeout(SOON):
        await task

    assert duty.times == 1


async def test_a_stop_ends_the_wait_for_the_next_time(duty: Duty) -> None:
    """However long the interval."""
    async with kept(duty) as (one, task):
        await duty.again()
        await settle()
        one.stop()
        async with asyncio.timeout(SOON):
            await task


async def test_what_the_duty_does_not_expect_ends_the_service(duty: Duty) -> None:
    """A bug is not retried for ever."""
    duty.raises = [ZeroDivisionError()]
    async with kept(duty) as (_, task):
        await asyncio.wait({task})
        assert isinstance(task.exception(), ZeroDivisionError)


def test_each_cause_is_a_line_with_the_duties_before_it(duty: Duty) -> None:
    """An outage fails most of them, and is one thing; a right that is missing is another."""
    rounds = [Round(name, duty.run_once, lambda: NEVER) for name in ("grants", "expiry", "sweep", "relay")]
    rounds[0].cause = rounds[1].cause = "Postgres does not answer: no connection"
    rounds[3].cause = "Postgres refuses: permission denied for table outbox"

    assert failing(rounds) == [
        "grants, expiry: Postgres does not answer: no connection",
        "relay: Postgres refuses: permission denied for table outbox",
    ]


async def test_a_cancellation_that_the_driver_turns_into_a_complaint_is_one(duty: Duty) -> None:
    """Cancelled inside a transaction, it says that the connection is away."""
    inside = asyncio.Event()

    async def run_once() -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise DatabaseAwayError("cancelled") from None

    task = asyncio.create_task(Round("duty", run_once, lambda: 0.0).keep())
    await inside.wait()
    task.cancel()
    async with asyncio.timeout(SOON):
        await asyncio.wait({task})

    assert task.cancelled()
    assert duty.times == 0


async def test_what_a_duty_has_to_try_again_is_counted_and_timed(duty: Duty, monkeypatch: pytest.MonkeyPatch) -> None:
    """For all duties together, from the first that fails to the last that works again."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)
    away, found = Away(), []
    duty.raises = [DatabaseAwayError("away"), DatabaseRefusedError("no")]

    async def run_once() -> None:
        found.append(away.goes_on)
        await duty.run_once()

    one = Round("duty", run_once, lambda: NEVER, away=away)
    task = asyncio.create_task(one.keep())
    async with asyncio.timeout(SOON):
        while len(found) < 3:
            await duty.done.wait()
            await asyncio.sleep(0)
    await settle()
    task.cancel()
    await asyncio.wait({task})

    assert found == [False, True, True]
    assert (one.retries, away.goes_on) == (2, False)


@pytest.mark.parametrize("then", [NotLeaderError("another replica acts"), PausedError("paused by ops")])
async def test_a_duty_that_is_not_to_be_done_any_more_fails_no_more(
    duty: Duty, then: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a sweep would keep the replica from being ready for ten minutes behind an outage."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)
    away = Away()
    duty.raises = [DatabaseAwayError("no connection"), then]
    one = Round("duty", duty.run_once, lambda: NEVER, away=away)
    task = asyncio.create_task(one.keep())
    await duty.again()
    assert (one.cause, away.goes_on) == ("Postgres does not answer: no connection", True)
    await duty.again()
    await settle()
    task.cancel()
    await asyncio.wait({task})

    assert (one.failing_since, one.cause, away.goes_on, duty.times) == (None, None, False, 2)


async def test_what_postgres_refuses_is_told_from_its_being_away(duty: Duty, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it says last: somebody has to grant a right, where waiting mends nothing."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.0)
    duty.raises = [DatabaseAwayError("no connection"), DatabaseRefusedError("permission denied"), ZeroDivisionError()]
    async with kept(duty) as (one, task):
        await asyncio.wait({task})
        assert one.cause == "Postgres refuses: permission denied"


def test_the_time_in_which_several_fail_counts_once() -> None:
    """It is Postgres that is away, and not each of them."""
    away = Away()
    away.begins(10.0)
    away.begins(11.0)
    away.ends(12.0)
    assert away.seconds(13.0) == 3.0
    away.ends(14.0)
    away.begins(20.0)

    assert away.seconds(21.5) == 5.5


async def test_it_is_known_since_when_a_duty_is_under_way(duty: Duty) -> None:
    """And that it is not while it waits for its next time, even if it failed."""
    goes_on, raised = asyncio.Event(), [ZeroDivisionError()]

    async def run_once() -> None:
        await duty.run_once()
        await goes_on.wait()
        raise raised.pop()

    one = Round("duty", run_once, lambda: NEVER)
    task = asyncio.create_task(one.keep())
    await duty.again()
    assert one.under_way_since is not None
    goes_on.set()
    await asyncio.wait({task})

    assert one.under_way_since is None
    assert isinstance(task.exception(), ZeroDivisionError)
