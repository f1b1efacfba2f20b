"""How much of a silence in Postgres counts."""

import pytest

from liveness.reach import APART, REMEMBERED, Reach


def seen(reach: Reach, begin: int, end: int) -> None:
    """Let Postgres' clock be seen every second, from `begin` to `end`."""
    for at in range(begin, end + 1):
        reach.seen(float(at))


@pytest.fixture
def reach() -> Reach:
    """Postgres, seen until 100, and not again before 200; it is 250 now."""
    reach = Reach()
    seen(reach, 0, 100)
    seen(reach, 200, 250)
    return reach


def test_all_counts_while_it_is_in_sight() -> None:
    """Also what was before anybody looked."""
    reach = Reach()
    assert reach.ago(60.0) == 60.0
    seen(reach, 0, 100)

    assert (reach.ago(60.0), reach.ago(1_000.0), reach.outages) == (60.0, 1_000.0, 0)


def test_an_outage_does_not_count(reach: Reach) -> None:
    """Who was silent for 10 s when it began, and for 50 s since, was silent for a minute, and a little."""
    assert reach.outages == 1
    assert reach.ago(60.0) == 60.0 + 100.0 - APART
    # Nothing of it matters to whoever was heard since.
    assert (reach.ago(50.0), reach.ago(20.0)) == (50.0, 20.0)


def test_outages_add_up(reach: Reach) -> None:
    """Those that lie within what is asked for, and no others."""
    seen(reach, 270, 280)

    assert reach.ago(10.0) == 10.0
    assert reach.ago(11.0) == 11.0 + 20.0 - APART
    assert reach.ago(70.0) == 70.0 + 20.0 + 100.0 - 2 * APART


def test_what_is_seen_rarely_counts_a_little() -> None:
    """Else the dead would stay for as long as Postgres is slow."""
    reach = Reach()
    for at in range(0, 1_000, 10):
        reach.seen(float(at))

    assert 100.0 < reach.ago(60.0) < 60.0 * 10 / APART + 10.0


def test_the_bound_itself_is_in_sight() -> None:
    """A leader that renews as rarely as it may loses nothing by it."""
    reach = Reach()
    for step in range(100):
        reach.seen(step * APART)

    assert reach.ago(60.0) == 60.0


def test_an_answer_that_was_overtaken_changes_nothing(reach: Reach) -> None:
    """Two that ask at once may be answered in either order."""
    reach.seen(249.99)
    reach.seen(250.0 - APART)

    assert reach.ago(60.0) == 60.0 + 100.0 - APART


def test_a_clock_that_was_set_back_is_followed(reach: Reach) -> None:
    """All that was before is as much younger by it, so as much less has to be left out."""
    reach.seen(220.0)

    assert reach.ago(60.0) == 60.0 + 100.0 - APART - 30.0
    assert reach.ago(20.0) == 20.0
    seen(reach, 221, 250)
    assert (reach.ago(60.0), reach.ago(90.0)) == (60.0, 90.0 + 100.0 - APART - 30.0)


def test_a_clock_that_was_set_back_by_more_than_an_outage(reach: Reach) -> None:
    """That is no longer one, and those before it are shorter."""
    seen(reach, 400, 410)
    reach.seen(210.0)

    assert reach.ago(1_000.0) == 1_000.0 + (100.0 - APART) + (150.0 - APART) - 200.0


def test_an_answer_that_comes_very_late_forgets_no_outage(reach: Reach) -> None:
    """A renewal that took long to commit tells what the clock said at its beginning."""
    reach.seen(250.0 - APART - 1.0)
    reach.seen(251.0)

    assert reach.ago(60.0) > 60.0 + 100.0 - 4 * APART


def test_it_tells_for_how_long_postgres_is_back(reach: Reach) -> None:
    """What is younger than that is as old as it is."""
    assert (reach.back_for, Reach().back_for) == (50.0, 0.0)


def test_it_does_not_grow_without_end() -> None:
    """The oldest outages are told apart no more, and count as little as before."""
    reach = Reach()
    for at in range(0, 10 * (REMEMBERED + 50), 10):
        reach.seen(float(at))

    assert len(reach._lost) == REMEMBERED
    assert reach.outages == REMEMBERED + 49
    assert reach.ago(1e6) == 1e6 + reach.outages * (10.0 - APART)
