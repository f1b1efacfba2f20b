"""Storms: when nearly everybody falls silent at once, doubt yourself first. What is one, rule by rule."""

import pytest

from liveness import storms
from liveness.storms import GROUPS_REMEMBERED, LEAST, PERCENT
from tests.unit.makers import restored
from tests.unit.weather import LONG, MAX_HOLD, Weather, crowd


@pytest.fixture
def weather() -> Weather:
    """Nobody is known yet."""
    return Weather()


# 1. Groups.


def test_workers_are_grouped_by_their_nats_server(weather: Weather) -> None:
    """Those that state none are one group; who states none later stays where it was."""
    weather.beat("a", "b", now=0.0, via="n1")
    weather.beat("c", now=0.0, via="n2")
    weather.beat("d", "e", now=0.0, via=None)
    weather.beat("a", now=1.0, via=None)
    weather.beat("b", now=1.0, via="n2")

    assert {via: group.members for via, group in weather.storms.groups.items()} == {"n1": 1, "n2": 2, "": 2}
    weather.book.forget("a")
    assert weather.storms.groups["n1"].members == 0


def test_a_storm_by_one_server_holds_nobody_else(weather: Weather) -> None:
    """Lapses by others are judged by themselves."""
    weather.beat(*crowd(10), now=0.0, via="n1")
    weather.beat("other", now=0.0, via="n2")
    weather.beat(*crowd(9, "x"), now=9.0, via="n2")

    assert weather.look(10.0) == ["other"]
    assert weather.news() == [("n1", "held")]


def test_groups_that_nobody_is_in_are_forgotten(weather: Weather) -> None:
    """A worker that states another server with every beat leaves no endless trail."""
    weather.beat("still", now=0.0, via="real")
    for number in range(GROUPS_REMEMBERED + 10):
        weather.beat("w", now=float(number), via=f"{number}")

    assert len(weather.storms.groups) < GROUPS_REMEMBERED
    assert weather.storms.groups["real"].members == 1


def test_many_servers_cost_no_more_each_than_a_few(weather: Weather) -> None:
    """Whatever names and servers a hostile client invents: no beat costs a walk through all of them."""

    class Walked(dict[str, object]):
        walks = 0

        def items(self) -> object:  # type: ignore[override]
            Walked.walks += len(self)
            return super().items()

    weather.storms.groups = Walked()  # type: ignore[assignment]
    many = 4 * GROUPS_REMEMBERED
    for number in range(many):
        weather.beat(f"w{number}", now=0.0, via=f"{number}")
        if type(weather.storms.groups) is dict:
            weather.storms.groups = Walked(weather.storms.groups)  # type: ignore[assignment]

    assert Walked.walks < 10 * many


# 2. What a storm is.


@pytest.mark.parametrize(
    ("members", "silent", "storm"),
    [
        (1, 1, False),
        (2, 2, False),
        (LEAST, LEAST, True),
        (LEAST, LEAST - 1, False),
        (5, 3, True),
        (20, 11, True),
        (20, 10, False),
        (100, 55, True),
        (100, 54, False),
        (180, 99, True),
    ],
)
def test_three_and_55_percent_are_a_storm(weather: Weather, members: int, silent: int, *, storm: bool) -> None:
    """Fewer are not: they go at once."""
    weather.beat(*crowd(silent), now=0.0)
    weather.beat(*crowd(members - silent, "x"), now=9.0)

    assert weather.look(10.0) == ([] if storm else crowd(silent))
    assert weather.storms.holding is storm
    assert weather.news() == ([("n1", "held")] if storm else [])


def test_the_quiet_ones_save_the_first(weather: Weather) -> None:
    """Beats are spread: when the first lapses, those that used up half of their ttl are counted with it."""
    for number, worker in enumerate(crowd(10)):
        weather.beat(worker, now=number / 2)

    assert weather.look(10.0) == []
    assert weather.look(14.5) == []
    assert len(weather.book.endings) == 10


def test_who_beats_three_times_in_a_ttl_is_not_quiet(weather: Weather) -> None:
    """A crowd of which half dies is no storm, whenever in their interval the others beat."""
    weather.beat(*crowd(10), now=0.0)
    for number, worker in enumerate(crowd(10, "x")):
        weather.beat(worker, now=10.0 - number / 3)

    assert len(weather.look(10.0)) == 10


def test_half_a_ttl_is_quiet_and_less_is_not() -> None:
    """By each lease's own ttl."""
    for left, storm in [(5.0, True), (5.25, False)]:
        weather = Weather()
        weather.beat("first", now=0.0)
        weather.beat("a", "b", now=left)
        assert (weather.look(10.0) == []) is storm
        weather = Weather()
        weather.beat("first", now=0.0)
        weather.beat("a", "b", now=left - 10.0, ttl=20.0)
        assert (weather.look(10.0) == []) is (left - 10.0 + 20.0 <= 10.0 + 10.0)


def test_who_lapsed_before_and_waits_still_is_quiet(weather: Weather) -> None:
    """Postgres was away when the first of them lapsed."""
    weather.beat(*crowd(2), now=0.0)
    weather.beat(*crowd(3, "x"), now=6.0)
    assert weather.look(10.0) == crowd(2)

    assert weather.look(16.0) == []
    assert weather.storms.groups["n1"].storm is not None


def test_proofs_are_not_quiet(weather: Weather) -> None:
    """A deployment that says goodbye does not make a storm of one death."""
    weather.beat(*crowd(6), now=0.0)
    weather.beat(*crowd(4, "x"), now=9.0)
    for worker in crowd(5):
        weather.book.release(worker, None, 1.0)

    assert sorted(weather.look(10.0)) == crowd(6)


def test_who_was_not_heard_since_the_start_does_not_count(weather: Weather) -> None:
    """Neither for a storm nor against one."""
    restored(weather.book, *crowd(20))
    weather.storms.restored(20)
    weather.beat("a", "b", "c", now=0.0)

    assert sorted(weather.look(10.0)) == crowd(20)
    assert weather.news() == [("n1", "held")]


def test_the_numbers_are_those_of_the_issue() -> None:
    """At least 3 and at least 55 %."""
    assert (LEAST, PERCENT) == (3, 55)


# 6. Who does not act.


def test_who_takes_over_in_a_storm_goes_on_with_it(weather: Weather) -> None:
    """Its hold counts from when it began, and not from the takeover."""
    weather.beat(*crowd(5), now=0.0)
    weather.storms.watch(weather.book, 9.75)
    assert not weather.storms.holding
    weather.storms.watch(weather.book, 10.0)

    assert weather.look(300.0) == []
    assert len(weather.look(10.0 + MAX_HOLD)) == 1


def test_who_takes_over_behind_the_sign_owes_what_it_promised(weather: Weather) -> None:
    """Half of them are back already: who is not is as alive as they are."""
    weather.beat(*crowd(8), now=0.0)
    weather.storms.watch(weather.book, 10.0)
    weather.beat(*crowd(4), now=12.0, ttl=LONG)

    assert weather.look(12.0) == []
    assert weather.look(21.75) == []
    assert len(weather.look(22.0)) == 1


def test_who_loses_the_lead_in_a_storm_and_leads_again_goes_on_with_it(weather: Weather) -> None:
    """What waits has lapsed before; nothing else would look at it once more."""
    weather.beat(*crowd(5), now=0.0)
    assert weather.look(10.0) == []
    weather.storms.watch(weather.book, 11.0)

    assert weather.look(12.0) == []
    assert weather.storms.holding


def test_a_storm_is_over_for_those_too_that_do_not_act(weather: Weather) -> None:
    """A ttl has passed since the sign, and a pass for each of those that never came back."""
    weather.beat(*crowd(5), now=0.0)
    weather.storms.watch(weather.book, 10.0)
    for now in (12.0, 17.0, 22.0):
        weather.beat(*crowd(5)[1:], now=now)
    weather.storms.watch(weather.book, 26.75)
    assert weather.storms.holding
    weather.storms.watch(weather.book, 27.0)

    assert not weather.storms.holding
    assert weather.news() == []


def test_a_storm_ends_for_those_that_do_not_act_whoever_stays_overdue_there(weather: Weather) -> None:
    """A life that only this replica heard, or that the leader spares, is overdue here for ever."""
    weather.beat(*crowd(5), now=0.0)
    weather.storms.watch(weather.book, 10.0)
    for now in range(12, 60):
        weather.beat(*crowd(5)[1:], now=float(now))
        weather.storms.watch(weather.book, float(now))

    assert not weather.storms.holding
    assert weather.storms.held(60.0) == []


def test_who_does_not_act_looks_the_more_rarely_the_more_there_are_overdue(
    weather: Weather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has to hear meanwhile; but it looks once a second, as no storm may be missed."""
    monkeypatch.setattr(storms, "WATCHED_PER_SECOND", 10)
    weather.beat(*crowd(20), now=0.0)
    weather.storms.watch(weather.book, 10.0)
    weather.beat("more", "still more", "most", now=0.5, via="n2")
    weather.storms.watch(weather.book, 10.75)
    assert weather.storms.groups["n2"].storm is None
    weather.storms.watch(weather.book, 11.0)

    assert weather.storms.groups["n2"].storm is not None


def test_a_lapse_is_judged_once_while_another_one_acts(weather: Weather) -> None:
    """Who is quiet later, and lives, makes no storm of it."""
    weather.beat("dead", now=0.0)
    weather.beat(*crowd(2), now=9.0)
    weather.storms.watch(weather.book, 10.0)
    weather.storms.watch(weather.book, 15.0)

    assert not weather.storms.holding


def test_what_another_one_tells_is_told_by_who_takes_over_while_it_lasts(weather: Weather) -> None:
    """Perhaps it did not come to that."""
    weather.beat(*crowd(5), now=0.0)
    weather.storms.watch(weather.book, 10.0)
    weather.storms.watch(weather.book, 11.0)

    assert weather.news() == [("n1", "held")]
