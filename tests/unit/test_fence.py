"""When a worker is lost, by its own clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liveness.client.fence import Fence
from liveness.client.pace import Pace

PACE = Pace.stated(10, None, None)


def test_it_is_lost_a_margin_before_its_ttl_ends() -> None:
    """Counted from when the beat was sent, and not from when its answer came."""
    fence = Fence(PACE, 0.0)
    fence.proven(7.5, 7.6)
    fence.proven(8.0, 9.5)

    assert (fence.remaining(10.0), fence.grace(10.0), fence.passed(10.0)) == (6.0, 8.0, False)
    assert not fence.passed(15.99)
    assert fence.passed(16.0)
    assert (fence.remaining(16.0), fence.grace(16.0), fence.grace(18.5)) == (0.0, 2.0, 0.0)


def test_lost_is_lost() -> None:
    """An answer that is read too late changes nothing, though nobody has looked meanwhile."""
    fence = Fence(PACE, 0.0)
    fence.proven(0.0, 0.1)
    fence.proven(7.9, 8.0)

    assert fence.lost
    assert fence.passed(8.0)
    assert fence.remaining(8.1) == 0.0


def test_an_answer_out_of_turn_takes_nothing_back() -> None:
    """The hello was sent before the beat, and is answered after it."""
    fence = Fence(PACE, 0.0)
    fence.proven(2.0, 2.1)
    fence.proven(1.0, 2.2)
    assert fence.remaining(3.0) == 7.0


def test_before_the_first_beat_there_is_nothing_to_rely_on() -> None:
    """But it is lost only after a whole window: it may have claimed."""
    fence = Fence(PACE, 100.0)
    assert (fence.remaining(101.0), fence.passed(107.9)) == (0.0, False)
    assert fence.passed(108.0)


def test_a_shorter_ttl_counts_at_once() -> None:
    """The service has promised no more from the beginning on."""
    fence = Fence(PACE, 0.0)
    fence.proven(0.0, 0.1)
    fence.pace = PACE.granted(5.0)
    assert (fence.remaining(1.0), fence.passed(4.0)) == (3.0, True)


@given(
    st.lists(st.tuples(st.floats(0, 3), st.floats(0, 12))),
    st.floats(0.1, 100),
    st.floats(0, 200),
)
def test_it_never_relies_on_more_than_was_promised(beats: list[tuple[float, float]], ttl: float, looked: float) -> None:
    """Whatever is sent and answered when, and however seldom anybody looks at the clock.

    What remains ends before the ttl of the last beat that was known to be taken in time, and never begins again.
    """
    fence, now, last, lost = Fence(Pace.stated(ttl, None, None), 0.0), 0.0, None, False
    for pause, under_way in beats:
        sent, now = now + pause, now + pause + under_way
        if fence.remaining(now):
            assert last is not None
            assert fence.remaining(now) <= last + ttl - now
        else:
            lost = lost or last is not None or fence.passed(now)
        fence.proven(sent, now)
        assert not (lost and fence.remaining(now))
        if not fence.lost:
            last = sent
    now += looked
    assert fence.passed(now) == (fence.lost or now >= (last or 0.0) + fence.pace.window)
    if last is not None and not fence.lost:
        assert fence.remaining(now) <= max(0.0, last + ttl - now)


@pytest.mark.parametrize(
    ("ttl", "interval", "expected"),
    [
        # As long as a beat.
        (10, None, 2.0),
        # As long as supervisors wait.
        (600, None, 10.0),
        (None, None, 10.0),
        # Not so long that it would be lost between two beats.
        (2, 1.8, 0.1),
        # A worker that beats so seldom knows of a longer heartbeat_timeout.
        (None, 90, 10.0),
    ],
)
def test_the_margin_follows_the_ttl(ttl: float | None, interval: float | None, expected: float) -> None:
    """Without one of its own, a worker has as long to stop as it beats, and can be heard before that."""
    pace = Pace.stated(ttl, interval, None)
    assert pace.margin == pytest.approx(expected)
    assert pace.interval < pace.window


@pytest.mark.parametrize(
    ("ttl", "interval", "margin", "words"),
    [
        (10, 2, 8, ["margin (8)", "interval (2)", "ttl (10)", "lower margin or interval"]),
        (None, None, 50, ["margin (50)", "interval (10)", "none stated, so 60"]),
        (10, 2, -1, ["margin (-1)", "from 0 on"]),
        (10, 2, float("nan"), ["margin (nan)"]),
        (10, 2, float("inf"), ["margin (inf)"]),
    ],
)
def test_margins_that_cannot_be(ttl: float | None, interval: float | None, margin: float, words: list[str]) -> None:
    """One that would make it lost while all is well is refused, with the values and the fix."""
    with pytest.raises(ValueError, match="margin") as caught:
        Pace.stated(ttl, interval, margin)
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("stated", "granted", "expected"),
    [
        # ttl, interval, margin: what is stated holds where the service grants as much.
        ((10, 3, 1), 10, (10, 3, 1)),
        # The service keeps a longer ttl than was asked for; nobody relies on it.
        ((0.5, None, None), 1, (0.5, 0.1, 0.1)),
        ((7200, None, None), 3600, (3600, 720, 10)),
        # None was stated: the service's own holds.
        ((None, None, None), 30, (30, 6, 6)),
        ((None, None, None), 300, (300, 10, 10)),
        ((None, 20, 5), 60, (60, 20, 5)),
        # What was stated would make it lost between two beats.
        ((None, 60, None), 60, (60, 12, 10)),
        ((100, 30, 40), 60, (60, 30, 10)),
        ((None, None, None), 1e-9, (1e-9, 0.02, 0)),
    ],
)
def test_what_the_service_grants(
    stated: tuple[float | None, float | None, float | None], granted: float, expected: tuple[float, float, float]
) -> None:
    """The shorter ttl counts, and beats are as many as it takes."""
    pace = Pace.stated(*stated).granted(granted)
    assert (pace.ttl, pace.interval, max(pace.margin, 0)) == pytest.approx(expected)
