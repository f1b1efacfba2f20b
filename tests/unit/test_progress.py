from liveness.client.progress import Progress


def test_it_stands_still_once_its_patience_is_over() -> None:
    """One look finds it, and those behind it find nothing new."""
    progress = Progress(patience=2, now=100)

    assert not progress.look(101.9)
    assert progress.look(102)
    assert not progress.look(103)
    assert progress.stands_still


def test_progress_is_asked_for_anew_each_time() -> None:
    """What was shown counts from when it was shown."""
    progress = Progress(patience=2, now=100)
    assert not progress.show(101.5)

    assert not progress.look(103.4)
    assert progress.look(103.5)


def test_it_goes_on() -> None:
    """Whoever shows it is told whether it is news."""
    progress = Progress(patience=2, now=100)
    progress.look(102)

    assert progress.show(111)
    assert not progress.show(111)
    assert not progress.stands_still
    assert not progress.look(112.9)


def test_an_observer_who_was_paused_begins_then() -> None:
    """It stands still by the look that finds it, and what is shown right after that is news."""
    progress = Progress(patience=2, now=100)

    assert progress.look(1000)
    assert progress.show(1000)
    assert not progress.look(1001.9)
