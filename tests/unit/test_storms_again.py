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


def test_lapses_that_follow_each_other_at_once_are_set_against_the_group_as_it_was(weather: Weather) -> None:
    """Three of six die within a moment: that some are gone already makes no storm of the rest."""
    weather.beat(*crowd(3, "live"), now=9.0, ttl=LONG)
    for number, worker in enumerate(crowd(3, "dead")):
        weather.beat(worker, now=number / 16)
    gone = [worker for sixteenth in range(160, 176) for worker in weather.end(sixteenth / 16)]

    assert gone == crowd(3, "dead")


def test_a_death_among_the_passes_of_a_storm_is_no_storm(weather: Weather) -> None:
    """Those that were silent before leave the group faster than it is counted."""
    weather.beat(*crowd(200, "dead"), now=0.0)
    assert weather.look(10.0) == []
    weather.beat(*crowd(17), now=12.0)
    gone: list[str] = []
    for sixteenth in range(193, 16 * 40):
        now = sixteenth / 16
        weather.beat(*crowd(17)[min(max(sixteenth - 210, 0), 3) :], now=now)
        gone += weather.end(now)

    assert sorted(gone) == sorted([*crowd(200, "dead"), *crowd(3)])
    assert weather.news() == [("n1", "held"), ("n1", "released"), ("n1", "over")]


def test_who_takes_over_in_a_second_storm_lets_go_whom_the_first_ones_sign_has_not_brought_back(
    weather: Weather,
) -> None:
    """It was promised a ttl and silent all the time, in the eyes of those too that did not act."""
    weather.beat(*crowd(6, "dead"), now=0.0)
    weather.storms.watch(weather.book, 10.0)
    weather.beat(*crowd(9), now=12.0)
    weather.storms.watch(weather.book, 22.0)
    assert weather.storms.holding
    gone = [worker for now in range(23, 60) for worker in weather.end(float(now))]

    assert sorted(gone) == crowd(6, "dead")


def test_who_lapses_only_in_a_second_storm_waits_for_that_one(weather: Weather) -> None:
    """However silent it was since before the first: it promised long, and the way was open for a moment only."""
    weather.beat(*crowd(20), now=0.0)
    weather.beat("slow", now=-50.0, ttl=100.0)
    assert weather.look(10.0) == []
    weather.beat(*crowd(20), now=20.0)

    for now in range(20, 600):
        assert weather.look(float(now)) == []


def test_what_an_earlier_sign_promised_counts_from_a_later_loss(weather: Weather) -> None:
    """Its beats may have been lost, too, whatever storm holds by then."""
    weather.beat("slow", "slower", now=-10.0, ttl=20.0)
    weather.beat(*crowd(20), now=0.0)
    assert weather.look(10.0) == []
    weather.beat(*crowd(20), now=20.5)
    assert weather.look(30.5) == []
    weather.storms.lost(35.0)

    for quarter in range(124, 4 * 55):
        assert weather.look(quarter / 4) == []
    assert len(weather.look(55.0)) == 2


def test_a_sign_makes_no_second_storm_of_the_same_count(weather: Weather) -> None:
    """Sixty of a hundred die, a moment apart, and the others beat on."""
    weather.beat(*crowd(40, "live"), now=9.0, ttl=LONG)
    for number, worker in enumerate(crowd(60, "dead")):
        weather.beat(worker, now=number / 64)
    for number in range(64):
        now = 10.0 + number / 64
        weather.look(now)
        weather.beat(f"live{number % 40:03}", now=now, ttl=LONG)

    assert weather.news() == [("n1", "held")]


def test_who_does_not_act_goes_on_with_a_storm_whose_dead_wait_for_postgres(weather: Weather) -> None:
    """They have waited for their ttl behind the sign, and go in passes when it takes over."""
    weather.beat(*crowd(60, "dead"), now=0.0)
    weather.beat(*crowd(40, "live"), now=9.0, ttl=LONG)
    for second in range(10, 40):
        weather.storms.watch(weather.book, float(second), away=True)
        weather.beat(*crowd(40, "live"), now=float(second), ttl=LONG)

    assert len(weather.end(40.0)) == 15


def test_who_takes_over_between_two_passes_goes_on_with_them(weather: Weather) -> None:
    """Perhaps somebody saw by the first one that it was a mistake."""
    weather.beat(*crowd(60, "dead"), now=0.0)
    weather.beat(*crowd(40, "live"), now=9.0, ttl=LONG)
    weather.storms.watch(weather.book, 10.0)
    weather.beat(*crowd(40, "live"), now=12.0, ttl=LONG)
    weather.storms.watch(weather.book, 22.0)
    for worker in crowd(15, "dead"):
        weather.book.forget(worker)
    weather.storms.watch(weather.book, 22.5)

    assert len(weather.end(22.75)) == 15


def test_a_sign_of_long_ago_is_no_sign_for_who_takes_over(weather: Weather) -> None:
    """Sixty of a hundred are heard by the one who acts and not here; those that are heard here gave the sign."""
    weather.beat(*crowd(60, "far"), now=0.0)
    for second in range(10, 100):
        weather.storms.watch(weather.book, float(second))
        weather.beat(*crowd(40, "near"), now=float(second), ttl=LONG)

    assert weather.end(100.0) == []
    assert weather.storms.holding


def test_storms_that_follow_each_other_are_one_piece_of_news_for_who_takes_over(weather: Weather) -> None:
    """The last one is what holds."""
    for beaten in (0.0, 12.0, 24.0):
        weather.beat(*crowd(5), now=beaten)
        weather.storms.watch(weather.book, beaten + 10.0)

    assert weather.news() == [("n1", "held")]
