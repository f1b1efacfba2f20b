"""Storms: how long lapses wait in one, for what, and how they go then."""

import math

import pytest

from liveness.lease import Proof
from liveness.storms import News
from tests.unit.makers import lease_of, restored
from tests.unit.weather import LONG, MAX_HOLD, TTL, Weather, crowd


@pytest.fixture
def weather() -> Weather:
    """Nobody is known yet."""
    return Weather()


@pytest.fixture
def storm(weather: Weather) -> Weather:
    """Twenty workers by n1 fell silent at 0, and one by n2 lives; it is 10. A pass is 3 of them."""
    weather.beat(*crowd(20), now=0.0)
    weather.beat("elsewhere", now=9.0, via="n2", ttl=LONG)
    assert weather.look(10.0) == []
    assert weather.news() == [("n1", "held")]
    return weather


def test_proofs_do_not_wait(storm: Weather) -> None:
    """Whoever said goodbye, or was certified dead, goes at once."""
    storm.book.release("w000", None, 11.0, Proof("died"))
    storm.book.release("w001", None, 11.0)

    assert sorted(storm.look(11.0)) == ["w000", "w001"]


def test_without_a_sign_they_wait_for_the_hold_to_end(storm: Weather) -> None:
    """Counted from the beginning of the storm."""
    storm.beat("elsewhere", now=600.0, via="n2")

    assert storm.look(10.0 + MAX_HOLD - 0.25) == []
    assert storm.news() == []
    assert len(storm.look(10.0 + MAX_HOLD)) == 3
    assert storm.news() == [("n1", "released")]


def test_a_hold_of_0_never_ends() -> None:
    """But by a sign."""
    storm = Weather(max_hold=0.0)
    storm.beat(*crowd(20), now=0.0)
    assert storm.look(1e9) == []
    storm.beat("new", now=1e9, ttl=LONG)

    assert len(storm.look(1e9 + TTL)) == 3


def sign_by_a_member(storm: Weather) -> None:
    """One of them beats again."""
    storm.beat("w009", now=20.0, ttl=LONG)


def sign_without_a_server(storm: Weather) -> None:
    """One of them beats again and does not say by which server."""
    storm.beat("w009", now=20.0, via=None, ttl=LONG)


def sign_by_a_new_name(storm: Weather) -> None:
    """Somebody else beats by that server."""
    storm.beat("new", now=20.0, ttl=LONG)


def sign_by_a_stale_one(storm: Weather) -> None:
    """A beat that renews nothing came by that server all the same."""
    storm.storms.overheard("n1", 20.0)


def sign_elsewhere(storm: Weather) -> None:
    """A former member is heard by another server."""
    storm.beat("w009", now=20.0, via="n2", ttl=LONG)


def sign_of_one_that_comes(storm: Weather) -> None:
    """Somebody who was heard by another server is heard by this one."""
    storm.beat("elsewhere", now=20.0, via="n1")


SIGNS = [
    sign_by_a_member,
    sign_without_a_server,
    sign_by_a_new_name,
    sign_by_a_stale_one,
    sign_elsewhere,
    sign_of_one_that_comes,
]


@pytest.mark.parametrize("sign", SIGNS)
def test_after_a_sign_they_have_one_more_full_ttl(storm: Weather, sign: object) -> None:
    """Whoever is still silent then goes."""
    assert callable(sign)
    sign(storm)

    assert storm.look(20.0) == []
    assert storm.look(29.75) == []
    assert len(storm.look(30.0)) == 3
    assert storm.news() == [("n1", "released")]


def test_a_beat_by_another_server_is_no_sign(storm: Weather) -> None:
    """Nor is one that does not say by which it came, of somebody who was never heard by this one."""
    storm.beat("elsewhere", "more", now=20.0, via="n2", ttl=LONG)
    storm.beat("nowhere", now=20.0, via=None, ttl=LONG)
    storm.storms.overheard("n2", 20.0)
    storm.storms.overheard(None, 20.0)
    storm.storms.overheard("unknown", 20.0)

    assert storm.look(100.0) == []


def test_a_later_sign_does_not_prolong_the_wait(storm: Weather) -> None:
    """The first one showed that the way is open."""
    storm.beat("new", now=20.0, ttl=LONG)
    storm.beat("new", now=29.0, ttl=LONG)

    assert len(storm.look(30.0)) == 3


def test_the_wait_is_each_ones_own_ttl() -> None:
    """A worker that promised an hour is owed an hour."""
    storm = Weather()
    storm.beat("short", "brief", now=0.0)
    storm.beat("long", now=-25.0, ttl=30.0)
    assert storm.look(10.0) == []
    storm.beat("new", now=20.0, ttl=LONG)

    assert storm.end(30.0) == ["brief"]
    assert storm.end(31.0) == ["short"]
    assert storm.end(49.75) == []
    assert storm.end(50.0) == ["long"]


def test_who_lapses_soon_after_the_sign_has_its_ttl_too(weather: Weather) -> None:
    """Workers connect again one after the other. That the first is back must not end the doubt about the others."""
    for number, worker in enumerate(crowd(10)):
        weather.beat(worker, now=number / 4)
    assert weather.look(10.0) == []
    # The route is back: the one that lapsed beats first, four more follow in time.
    weather.beat("w000", now=10.125)
    assert weather.look(10.125) == []
    weather.beat(*crowd(5)[1:], now=10.25)

    # The other five are silent for a few seconds more; each of them has a ttl since the sign.
    for quarter in range(41, 80):
        assert weather.look(quarter / 4) == []
    weather.beat(*crowd(10), now=20.0)
    assert weather.look(29.75) == []
    assert not weather.storms.holding


def test_a_storm_is_over_when_nobody_is_held_any_more(storm: Weather) -> None:
    """All are back; the next death is one death."""
    for now in (20.0, 25.0, 30.0, 35.0):
        storm.beat(*crowd(20)[1:], now=now)
        assert set(storm.end(now)) <= {"w000"}
    assert storm.end(40.0) == crowd(0)

    assert storm.news()[-1] == ("n1", "over")
    assert not storm.storms.holding
    storm.beat(*crowd(20)[1:], now=40.0)
    storm.beat(*crowd(20)[2:], now=48.0)
    assert storm.look(50.0) == ["w001"]


def test_a_storm_whose_members_all_left_is_over(storm: Weather) -> None:
    """They were ended on proof: nobody is left who could give a sign, and nobody who is held."""
    for worker in crowd(20):
        storm.book.end(worker, 12.0, Proof("operator"))
    assert len(storm.end(12.0)) == 20
    storm.look(12.0)

    assert not storm.storms.holding
    assert storm.storms.held(12.0) == []


def test_a_deployment_that_is_replaced_under_new_names_does_not_wait(weather: Weather) -> None:
    """All of the old ones died without a word; the new ones beat."""
    weather.beat(*crowd(10, "old"), now=0.0)
    gone = []
    for now in range(3, 60):
        weather.beat(*crowd(5, "new"), now=float(now))
        gone += weather.end(float(now))

    assert sorted(gone) == crowd(10, "old")


# 4. How they go.


def test_they_go_in_random_order_and_a_second_apart(storm: Weather) -> None:
    """At most 15 % of the group a pass, so that a mistake shows before it is complete."""
    storm.beat("new", now=20.0, ttl=LONG)

    assert storm.end(30.0) == ["w019", "w018", "w017"]
    assert storm.end(30.75) == []
    assert storm.end(31.0) == ["w016", "w015", "w014"]
    assert [len(storm.end(float(now))) for now in range(32, 38)] == [3, 3, 3, 3, 2, 0]
    assert storm.news() == [("n1", "released"), ("n1", "over")]


@pytest.mark.parametrize(("members", "pass_size"), [(3, 1), (6, 1), (10, 1), (20, 3), (39, 5), (40, 6), (100, 15)])
def test_at_most_15_percent_go_in_a_pass(weather: Weather, members: int, pass_size: int) -> None:
    """But one, at least."""
    weather.beat(*crowd(members), now=0.0)
    assert weather.look(10.0) == []

    assert len(weather.look(10.0 + MAX_HOLD)) == pass_size


def test_who_was_let_go_is_not_held_again(storm: Weather) -> None:
    """Postgres was away: it waits for its verdict, and others go meanwhile."""
    storm.beat("new", now=20.0, ttl=LONG)
    first = storm.look(30.0)

    assert storm.look(30.5) == [worker for worker in crowd(20) if worker in first]
    assert len(storm.look(31.0)) == 2 * len(first)


def test_who_beats_while_the_others_go_is_out_of_it(storm: Weather) -> None:
    """As always before the verdict."""
    storm.beat("w009", now=20.0, ttl=LONG)
    storm.look(30.0)
    storm.beat(*crowd(20), now=30.5)

    assert storm.look(31.0) == []
    assert storm.look(32.0) == []


# 5. Restored, and nobody heard.


def test_when_nobody_was_heard_since_the_start_only_proofs_act(weather: Weather) -> None:
    """Until the hold ends."""
    restored(weather.book, *crowd(3))
    weather.storms.restored(3)
    assert weather.look(10.0) == []
    weather.book.release("w000", None, 11.0)

    assert weather.end(11.0) == ["w000"]
    assert weather.news() == [("(restored)", "held")]
    assert weather.look(10.0 + MAX_HOLD) == ["w002"]


def test_two_that_were_restored_are_never_a_storm(weather: Weather) -> None:
    """They go like all others."""
    restored(weather.book, *crowd(2))
    weather.storms.restored(2)

    assert weather.look(10.0) == crowd(2)


def test_a_start_on_a_database_full_of_long_dead_workers_is_no_storm(weather: Weather) -> None:
    """Once somebody is heard."""
    restored(weather.book, *crowd(100))
    weather.storms.restored(100)
    weather.beat("alive", now=5.0)

    assert sorted(weather.look(10.0)) == crowd(100)
    assert weather.news() == []


def test_the_first_beat_of_all_gives_the_restored_one_more_ttl(weather: Weather) -> None:
    """It shows that the way is open. The others connect again just now, one after the other, and live."""
    restored(weather.book, *crowd(10))
    weather.storms.restored(10)
    assert weather.look(10.0) == []
    weather.beat("w000", now=60.0)
    assert weather.look(60.0) == []
    weather.beat(*crowd(10)[1:8], now=60.5)

    assert weather.look(69.75) == []
    gone = [worker for now in range(70, 80) for worker in weather.end(float(now)) if worker in {"w008", "w009"}]
    assert sorted(gone) == ["w008", "w009"]


# It is never silent.


def test_a_storm_says_how_many_and_since_when(storm: Weather) -> None:
    """For the readiness page, each its line."""
    assert storm.storms.held(25.0) == [
        "storm: 20 of 20 workers by the NATS server n1 fell silent at once; lapses are held since 15 s"
    ]
    nowhere = Weather()
    nowhere.beat(*crowd(3), now=0.0, via=None)
    restored(nowhere.book, *crowd(3, "x"))
    nowhere.look(10.0)
    assert "workers by NATS fell silent" in nowhere.storms.held(11.0)[0]


def test_what_is_told_of_a_storm(storm: Weather) -> None:
    """Who, how many, and for how long it was held."""
    storm.storms.news.clear()
    storm.beat("new", now=20.0, ttl=LONG)
    storm.look(30.0)
    assert storm.storms.news == [News(via="n1", state="released", members=20, silent=20, held_for=20.0)]
    storm.storms.news.clear()
    for now in range(30, 45):
        storm.end(float(now))
    assert [(news.state, news.silent) for news in storm.storms.news] == [("over", 0)]


def test_a_storm_begins_anew_after_it_was_over(storm: Weather) -> None:
    """It is told again."""
    for now in (20.0, 25.0, 30.0, 35.0):
        storm.beat(*crowd(20), now=now)
        storm.look(now)
    assert storm.news() == [("n1", "over")]

    assert storm.look(45.0) == []
    assert storm.news() == [("n1", "held")]


def test_what_a_sign_promised_counts_from_a_later_loss(storm: Weather) -> None:
    """What was lost might have been their beats."""
    storm.beat("new", now=20.0, ttl=LONG)
    storm.storms.lost(25.0)

    assert storm.look(34.75) == []
    assert len(storm.look(35.0)) == 3


def test_who_never_came_back_makes_no_second_storm(storm: Weather) -> None:
    """They are what is left of the first, of which nobody waits twice; two more that die are two."""
    storm.beat(*crowd(20)[12:], now=20.0)
    for now in (20.0, 25.0, 29.75):
        storm.beat(*crowd(20)[14:], now=now)
        assert storm.look(now) == []
    gone = {worker for now in range(30, 36) for worker in storm.end(float(now))}

    assert sorted(gone) == crowd(14)
    assert ("n1", "held") not in storm.news()


def test_for_how_long_a_lapse_is_held_at_most(storm: Weather) -> None:
    """Until the hold ends, or for a ttl behind the sign; nobody is held who is let go, over by proof, or elsewhere."""
    lease = lease_of(storm.book, "w001")
    line, left = storm.storms.hold(lease, 12.0) or ("", 0.0)
    assert line == storm.storms.held(12.0)[0]
    assert left == 10.0 + MAX_HOLD - 12.0
    assert storm.storms.hold(lease_of(storm.book, "elsewhere"), 12.0) is None

    storm.beat("new", now=20.0, ttl=LONG)
    assert (storm.storms.hold(lease, 24.0) or ("", 0.0))[1] == 20.0 + TTL - 24.0
    storm.book.release("w000", None, 24.0, Proof("died"))
    assert storm.storms.hold(lease_of(storm.book, "w000"), 24.0) is None
    gone = [name for name in storm.look(20.0 + TTL) if name != "w000"]
    assert storm.storms.hold(lease_of(storm.book, gone[0]), 20.0 + TTL) is None


def test_a_lapse_may_be_held_without_an_end() -> None:
    """When holds never end, only a sign says how long it is."""
    storm = Weather(max_hold=0.0)
    storm.beat(*crowd(20), now=0.0)
    storm.look(10.0)
    assert (storm.storms.hold(lease_of(storm.book, "w001"), 12.0) or ("", 0.0))[1] == math.inf
