"""Storms that follow each other: whose sign was good for whom, and who was silent through which."""

import pytest

from tests.unit.weather import LONG, MAX_HOLD, Weather, crowd


@pytest.fixture
def weather() -> Weather:
    """Nobody is known yet."""
    return Weather()


@pytest.fixture
def wake(weather: Weather) -> Weather:
    """Twenty workers beat again after the sign that ended a storm, until 30, and fall silent once more.

    One that promised long is waited for still, so that the first storm is not over by then.
    """
    weather.beat(*crowd(20), now=0.0)
    weather.beat("slow", now=-50.0, ttl=100.0)
    assert weather.look(10.0) == []
    for now in (20.0, 25.0, 30.0):
        weather.beat(*crowd(20), now=now)
        assert weather.look(now) == []
    assert weather.news() == [("n1", "held")]
    return weather


def test_a_storm_in_the_wake_of_another_is_one(wake: Weather) -> None:
    """The sign that they beat after was good for the first storm only."""
    for now in range(40, 600):
        assert wake.look(float(now)) == []

    assert wake.news() == [("n1", "over"), ("n1", "held")]


def test_a_storm_in_the_wake_of_another_has_a_sign_and_a_hold_of_its_own(wake: Weather) -> None:
    """Counted from its own beginning."""
    assert wake.look(40.0) == []
    wake.beat("new", now=50.0, ttl=LONG)

    assert wake.look(59.75) == []
    assert len(wake.look(60.0)) == 3


def test_the_hold_of_a_storm_in_the_wake_of_another_is_its_own(wake: Weather) -> None:
    """Not what the first has left of it."""
    assert wake.look(40.0) == []

    assert wake.look(39.75 + MAX_HOLD) == []
    assert len(wake.look(40.0 + MAX_HOLD)) == 3


def test_who_gave_the_sign_was_heard_since(weather: Weather) -> None:
    """It waits in the second storm with those that beat a moment after it."""
    weather.beat(*crowd(20), now=0.0)
    weather.beat("slow", now=-50.0, ttl=100.0)
    assert weather.look(10.0) == []
    weather.beat("w000", now=20.0)
    weather.beat(*crowd(20)[1:], now=20.5)

    for quarter in range(80, 2_000):
        assert weather.look(quarter / 4) == []


def test_who_never_came_back_does_not_outnumber_the_living(weather: Weather) -> None:
    """Six are dead when three others come to their server and give the sign; then nobody can be heard."""
    weather.beat(*crowd(6, "dead"), now=0.0)
    assert weather.look(10.0) == []
    weather.beat(*crowd(3), now=20.0)

    gone = [worker for quarter in range(80, 2_000) for worker in weather.end(quarter / 4)]
    assert sorted(gone) == crowd(6, "dead")


def test_who_was_heard_between_a_sign_and_a_loss_was_heard_since_the_sign(weather: Weather) -> None:
    """Beats that may have been lost later owe all of them more time; they make nobody silent who was not."""
    weather.beat(*crowd(20), now=0.0)
    weather.beat("slow", now=-50.0, ttl=100.0)
    assert weather.look(10.0) == []
    weather.beat(*crowd(20), now=20.0)
    weather.storms.lost(22.0)

    for quarter in range(80, 2_000):
        assert weather.look(quarter / 4) == []
