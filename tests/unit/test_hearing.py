"""The clock of the book."""

from liveness.hearing import MAX_STEP, Hearing


def test_hearing_time_follows_the_loop_while_we_hear() -> None:
    """Second for second."""
    hearing = Hearing(100.0)
    hearing.start(100.0)

    assert hearing.advance(100.25) == 0.25
    assert hearing.advance(100.5) == 0.5


def test_hearing_time_stops_while_we_are_deaf() -> None:
    """Silence in that time proves nothing."""
    hearing = Hearing(100.0)
    assert hearing.advance(150.0) == 0.0
    hearing.start(150.0)
    hearing.advance(150.25)
    hearing.stop(150.5)

    assert hearing.advance(900.0) == 0.5
    assert hearing.lost == 799.5


def test_a_late_look_counts_little() -> None:
    """A process that was stopped for a minute has not listened for a minute."""
    hearing = Hearing(0.0)
    hearing.start(0.0)

    assert hearing.advance(60.0) == MAX_STEP


def test_real_time_goes_on_while_we_are_deaf() -> None:
    """What is to become an instant of the database's clock counts the gaps that lie in between."""
    hearing = Hearing(0.0)
    hearing.start(0.0)
    before = hearing.advance(0.25)
    hearing.advance(0.5)
    hearing.stop(0.5)
    hearing.advance(100.0)
    hearing.start(600.5)
    after = hearing.advance(601.0)
    hearing.advance(601.25)

    assert hearing.real_ago(before) == 601.0
    assert hearing.real_ago(after) == 0.25
    assert hearing.real_ago(hearing.now) == 0.0


def test_a_clock_that_goes_back_does_not_turn_time_back() -> None:
    """Hearing time never decreases."""
    hearing = Hearing(10.0)
    hearing.start(10.0)
    hearing.advance(10.25)

    assert hearing.advance(9.0) == 0.25
