"""Which replica acts, with a leader's row that notes what it is asked."""

import contextlib
from collections.abc import AsyncIterator
from typing import cast

import pytest

from liveness.errors import DatabaseAwayError, NotLeaderError
from liveness.leadership import DEAF_LOOKS, INTERVAL_MOST, Leadership
from liveness.store import Leader


class Row:
    """The leader's row: whose it is, and what was asked of it. Raises what it is told to."""

    def __init__(self) -> None:
        self.term: int | None = None
        self.free = True
        self.kept = True
        self.away = False
        self.asked: list[str] = []

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.away:
            raise DatabaseAwayError("away")

    async def take(self, seconds: float) -> bool:
        """Begin a term, if nobody else leads."""
        self._ask(f"take {seconds:g}")
        if self.free:
            self.term = 7
        return self.free

    async def renew(self) -> bool:
        """Lead on, unless another has taken over."""
        self._ask("renew")
        if not self.kept:
            self.term = None
        return self.kept

    async def look(self) -> None:
        """See Postgres' clock."""
        self._ask("look")

    async def release(self) -> None:
        """Lead no more."""
        self.term = None
        self._ask("release")

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Act, unless another has taken over."""
        self._ask("check")
        if not self.kept:
            self.term = None
            raise NotLeaderError("over")
        yield


class Replica:
    """A leadership, its row, and what it told. `timeout` in seconds."""

    def __init__(self, timeout: float = 2.0) -> None:
        self.row = Row()
        self.told: list[str] = []
        self.hears = True
        self.catching_up: list[BaseException] = []
        self.leadership = Leadership(
            leader=cast("Leader", self.row),
            timeout=timeout,
            catch_up=self.catch_up,
            hears=lambda: self.hears,
            on_lead=lambda: self.told.append("lead"),
        )

    async def catch_up(self) -> None:
        """Learn what the former leader did."""
        assert self.leadership.leading is False
        self.told.append("catch up")
        if self.catching_up:
            raise self.catching_up.pop()

    async def look(self) -> bool:
        """Do one round; whether it leads is also what it says of itself."""
        await self.leadership.run_once()
        # A duty of its own, so that the lead is renewed meanwhile.
        leads = await self.leadership.learn()
        assert self.leadership.leading is leads
        return leads

    def take_told(self) -> list[str]:
        """Take what was told."""
        told, self.told = self.told, []
        return told


@pytest.fixture
def replica() -> Replica:
    """Nobody leads."""
    return Replica()


async def test_nobody_leads_so_we_do(replica: Replica) -> None:
    """It learns first what was done, and then acts."""
    assert await replica.look()
    assert replica.row.asked == ["take 2"]
    assert replica.take_told() == ["catch up", "lead"]


async def test_a_leader_renews_and_learns_nothing_again(replica: Replica) -> None:
    """Four times in a timeout."""
    await replica.look()
    assert await replica.look()

    assert replica.row.asked == ["take 2", "renew"]
    assert replica.told == ["catch up", "lead"]
    assert replica.leadership.interval == 0.5


async def test_a_leader_renews_every_two_seconds_whatever_the_timeout() -> None:
    """Those who divide the workers otherwise do not know it, and think it gone after 10 s."""
    assert Replica(timeout=60.0).leadership.interval == INTERVAL_MOST == 2.0


async def test_another_one_leads_so_we_wait(replica: Replica) -> None:
    """And look each time."""
    replica.row.free = False

    assert [await replica.look(), await replica.look()] == [False, False]
    assert replica.row.asked == ["take 2", "take 2"]
    assert replica.told == []


async def test_a_lead_taken_at_the_start_needs_no_catching_up(replica: Replica) -> None:
    """The book is filled after it; until then nothing acts."""
    assert await replica.leadership.take()
    assert not replica.leadership.leading
    assert await replica.look()
    assert replica.told == ["lead"]


async def test_a_start_as_a_follower_has_everything_to_learn(replica: Replica) -> None:
    """When it leads later."""
    replica.row.free = False
    assert not await replica.leadership.take()
    replica.row.free = True

    assert await replica.look()
    assert replica.told == ["catch up", "lead"]


async def test_a_lead_that_was_lost_is_learned_anew(replica: Replica) -> None:
    """What the other one did meanwhile is not known here."""
    await replica.look()
    replica.row.kept = replica.row.free = False
    replica.take_told()
    assert not await replica.look()
    assert replica.take_told() == []
    replica.row.free = replica.row.kept = True

    assert await replica.look()
    assert replica.take_told() == ["catch up", "lead"]


async def test_a_lead_that_was_lost_before_it_began_is_learned_anew(replica: Replica) -> None:
    """A process that was paused between taking it and acting."""
    await replica.leadership.take()
    replica.row.kept = False

    assert await replica.look()
    assert replica.take_told() == ["catch up", "lead"]


async def test_a_lead_taken_at_the_start_and_lost_before_it_was_renewed_is_learned_anew(replica: Replica) -> None:
    """A transaction found its term over: others have acted since the book was filled."""
    await replica.leadership.take()
    replica.row.term = None

    assert await replica.look()
    assert replica.take_told() == ["catch up", "lead"]


async def test_a_transaction_that_found_its_term_over_ends_the_lead(replica: Replica) -> None:
    """The row's holder knows before the next look."""
    await replica.look()
    replica.row.term, replica.row.free = None, False
    replica.take_told()

    assert not await replica.look()
    assert "renew" not in replica.row.asked
    assert replica.take_told() == []


async def test_a_leader_goes_on_while_postgres_is_away(replica: Replica) -> None:
    """Nobody can tell; its transactions will."""
    await replica.look()
    replica.row.away = True
    with pytest.raises(DatabaseAwayError):
        await replica.look()
    assert replica.leadership.leading
    replica.row.away = False

    assert await replica.look()
    assert replica.told == ["catch up", "lead"]


async def test_nothing_acts_before_all_is_learned(replica: Replica) -> None:
    """Postgres goes away in the middle: it is tried again in the same term."""
    replica.catching_up = [DatabaseAwayError("away")]
    with pytest.raises(DatabaseAwayError):
        await replica.look()
    assert not replica.leadership.leading

    assert await replica.look()
    assert replica.row.asked == ["take 2", "renew"]
    assert replica.told == ["catch up", "catch up", "lead"]


async def test_who_steps_down_leads_no_more_and_has_to_learn_anew(replica: Replica) -> None:
    """Even if Postgres cannot be told."""
    await replica.look()
    await replica.leadership.step_down()
    assert (replica.leadership.leading, replica.leadership.caught_up) == (False, False)
    assert replica.row.asked[-1] == "release"
    await replica.look()
    replica.row.away = True
    with pytest.raises(DatabaseAwayError):
        await replica.leadership.step_down()

    assert not replica.leadership.leading


async def test_who_does_not_hear_does_not_take_the_lead(replica: Replica) -> None:
    """Another one may hear. Whether Postgres is there is seen all the same."""
    replica.hears = False
    assert not await replica.look()
    assert replica.row.asked == ["look"]
    replica.hears = True

    assert await replica.look()


async def test_a_deaf_leader_renews_for_a_while_and_then_leaves_the_lead_to_others(replica: Replica) -> None:
    """A new connection to NATS is no reason to. What it has begun it goes on with until another one takes over."""
    await replica.look()
    replica.hears = False
    for _ in range(DEAF_LOOKS - 1):
        assert await replica.look()
    assert set(replica.row.asked[1:]) == {"renew"}
    replica.row.asked.clear()
    assert await replica.look()
    assert await replica.look()
    assert replica.row.asked == ["check", "look", "check", "look"]
    replica.row.kept = False
    assert not await replica.look()

    # From then on it only sees that Postgres is there.
    assert replica.row.asked == ["check", "look", "check", "look", "check", "look"]


async def test_a_leader_that_hears_again_renews_again(replica: Replica) -> None:
    """Its looks are counted anew."""
    await replica.look()
    for _ in range(2):
        replica.hears = False
        for _ in range(DEAF_LOOKS - 1):
            await replica.look()
        replica.hears = True
        await replica.look()

    assert set(replica.row.asked[1:]) == {"renew"}


async def test_a_lead_that_was_lost_while_catching_up_is_not_acted_on() -> None:
    """It took longer than a lead lasts, and another replica has begun its term."""
    replica = Replica()
    await replica.leadership.run_once()

    async def slow() -> None:
        replica.row.kept = False
        await replica.leadership.run_once()

    replica.row.free = False
    replica.leadership._catch_up = slow
    assert not await replica.leadership.learn()
    assert not replica.leadership.leading


async def test_a_lead_is_renewed_while_catching_up() -> None:
    """However long that takes."""
    replica = Replica()
    await replica.leadership.run_once()

    async def slow() -> None:
        await replica.leadership.run_once()

    replica.leadership._catch_up = slow
    assert await replica.leadership.learn()
    assert replica.row.asked == ["take 2", "renew"]
