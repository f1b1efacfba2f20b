"""The clock of the book: the argument at the top of `hearing`, clause by clause."""

import pytest

from liveness.hearing import ECHOES_REMEMBERED, GAPS_REMEMBERED, Echo
from tests.unit.makers import MAX_GAP, Ears


@pytest.fixture
def ears() -> Ears:
    """Ears whose subscription stands."""
    return Ears(100.0)


def accepted_since(ears: Ears) -> tuple[float, float]:
    """Return since when at the earliest NATS can have accepted what is heard now, in loop time and in hearing time."""
    return ears.hearing.not_before, ears.hearing.least_stamp


# 1. The echo on the subscription of the heartbeats.


def test_hearing_time_moves_to_the_sending_of_the_echo_that_was_heard(ears: Ears) -> None:
    """Not to the moment at which it was heard, and not to that of the last one sent."""
    ears.wait(0.25)
    echo = ears.send()
    ears.wait(0.25)
    ears.send()
    ears.wait(0.125)

    assert ears.hear(echo) is Echo.COUNTED
    assert ears.now == 0.25


def test_hearing_time_does_not_move_by_itself(ears: Ears) -> None:
    """However late it is, and whatever is sent: only what comes back is proof."""
    ears.listen(1.0)
    ears.wait(60.0)
    ears.send()

    assert ears.now == 1.0


def test_hearing_time_runs_as_fast_as_the_loops_while_we_hear(ears: Ears) -> None:
    """Second for second."""
    ears.listen(60.0)

    assert (ears.now, ears.hearing.lost) == (60.0, 0.0)


def test_an_echo_that_is_missing_was_dropped_and_its_time_is_proven_by_the_next(ears: Ears) -> None:
    """They come back in order; one that comes after all proves nothing more."""
    ears.wait(0.125)
    missing = ears.send()
    ears.wait(0.125)
    assert ears.hear(ears.send()) is Echo.COUNTED

    assert ears.now == 0.25
    assert ears.hear(missing) is Echo.IGNORED
    assert ears.now == 0.25


# 2. A token is heard once and cannot be guessed.


def test_a_foreign_token_moves_nothing(ears: Ears) -> None:
    """Neither the clock nor the time since the last sign of life."""
    ears.listen(1.0)
    ears.wait(1.0)

    assert ears.hear(b"forged") is Echo.IGNORED
    assert ears.hear(b"") is Echo.IGNORED
    assert ears.now == 1.0
    assert ears.hearing.unanswered_for(ears.time) == 1.0


def test_a_repeated_token_moves_nothing(ears: Ears) -> None:
    """Whoever reads it on its way can only repeat it behind us, and a late repetition is no gap."""
    ears.wait(0.25)
    echo = ears.send()
    assert ears.hear(echo) is Echo.COUNTED
    gaps = ears.hearing.gaps
    for _ in range(3):
        ears.wait(1.0)
        assert ears.hear(echo) is Echo.IGNORED

    assert (ears.now, ears.hearing.gaps) == (0.25, gaps)
    assert ears.hearing.unanswered_for(ears.time) == 3.0


def test_an_echo_of_an_earlier_connection_moves_nothing(ears: Ears) -> None:
    """What was sent before the subscription stood proves nothing about it."""
    ears.wait(0.25)
    echo = ears.send()
    ears.hearing.stop()
    ears.hearing.start(ears.time)
    ears.wait(0.25)

    assert ears.hear(echo) is Echo.IGNORED
    assert ears.now == 0.0
    assert ears.hearing.unanswered_for(ears.time) == 0.25


def test_nothing_is_heard_while_the_subscription_does_not_stand() -> None:
    """Not even an echo of ours."""
    ears = Ears(up=False)
    assert ears.hear(ears.send()) is Echo.IGNORED
    ears.hearing.start(0.0)
    ears.listen(1.0)
    ears.hearing.stop()

    ears.wait(0.25)
    assert ears.hear(ears.send()) is Echo.IGNORED
    assert ears.now == 1.0


def test_an_echo_that_was_sent_before_the_start_moves_nothing() -> None:
    """It may be on its way already when the subscription begins to stand."""
    ears = Ears(up=False)
    echo = ears.send()
    ears.wait(0.25)
    ears.hearing.start(ears.time)

    assert ears.hear(echo) is Echo.IGNORED


def test_echoes_on_their_way_are_not_remembered_without_end(ears: Ears) -> None:
    """The oldest is forgotten, and the newest counts."""
    first = ears.send()
    for _ in range(ECHOES_REMEMBERED):
        ears.wait(2**-12)
        last = ears.send()

    assert len(ears.hearing._sent) == ECHOES_REMEMBERED
    assert ears.hear(first) is Echo.IGNORED
    assert ears.hear(last) is Echo.COUNTED
    assert not ears.hearing._sent


# 3. An echo that took too long, or came too long after the one before, is a gap.


def test_an_echo_that_took_just_max_gap_counts(ears: Ears) -> None:
    """The bound itself is allowed, in both its meanings."""
    ears.wait(MAX_GAP)
    echo = ears.send()
    ears.wait(MAX_GAP)

    assert ears.hear(echo) is Echo.COUNTED
    assert ears.now == MAX_GAP


def test_an_echo_that_took_longer_than_max_gap_is_a_gap(ears: Ears) -> None:
    """A server that stood still lets our echo overtake beats that wait in the workers' sockets."""
    ears.listen(1.0)
    echo = ears.send()
    ears.wait(MAX_GAP + 0.125)

    assert ears.hear(echo) is Echo.GAP
    assert (ears.now, ears.hearing.lost) == (1.0, MAX_GAP + 0.125)


def test_an_echo_sent_longer_than_max_gap_after_the_one_before_is_a_gap(ears: Ears) -> None:
    """A process that stood still shared its machine, perhaps, with workers that did so too."""
    ears.listen(1.0)
    ears.wait(MAX_GAP + 0.125)

    assert ears.hear(ears.send()) is Echo.GAP
    assert (ears.now, ears.hearing.lost) == (1.0, MAX_GAP + 0.125)


def test_echoes_that_were_sent_during_a_gap_do_not_count(ears: Ears) -> None:
    """Hearing time goes on with the first that was sent after the gap was noticed."""
    ears.listen(1.0)
    echo = ears.send()
    ears.wait(0.5)
    during = ears.send()
    ears.wait(0.25)
    assert ears.hear(echo) is Echo.GAP
    at_its_end = ears.send()
    ears.wait(0.125)
    after = ears.send()

    assert ears.hear(during) is Echo.IGNORED
    assert ears.hear(at_its_end) is Echo.IGNORED
    assert ears.now == 1.0
    assert ears.hear(after) is Echo.COUNTED
    assert ears.now == 1.125


def test_echoes_that_keep_coming_too_late_never_move_the_clock(ears: Ears) -> None:
    """A server that needs 0.6 s for everything is heard, but not believed."""
    on_their_way = []
    for _ in range(40):
        on_their_way.append(ears.send())
        ears.wait(0.125)
        if len(on_their_way) > 5:
            assert ears.hear(on_their_way.pop(0)) is not Echo.COUNTED

    assert ears.now == 0.0
    assert ears.hearing.deaf(ears.time) is False
    assert ears.hearing.unanswered_for(ears.time) == 0.0


def test_one_stall_is_one_gap(ears: Ears) -> None:
    """All the echoes that waited in it come at once, and are of the same gap: told once, remembered once."""
    ears.listen(1.0)
    gaps, remembered = ears.hearing.gaps, len(ears.hearing._gap_ends)
    waiting = []
    for _ in range(100):
        waiting.append(ears.send())
        ears.wait(0.125)
    heard = []
    for number, echo in enumerate(waiting):
        heard.append(ears.hear(echo))
        if ears.time - (101.0 + number / 8) > MAX_GAP:
            last_late = ears.time
        ears.wait(2**-10)

    assert Echo.COUNTED not in heard
    # It is over when the last one that was late has been heard.
    assert (ears.now, ears.hearing.lost) == (1.0, last_late - 101.0)
    assert ears.hearing.gaps == gaps + 1
    assert len(ears.hearing._gap_ends) == remembered + 1


# 4. Where beats may be lost: the shell says so to the lines (test_listening).


def test_the_time_without_a_subscription_does_not_count(ears: Ears) -> None:
    """Hearing goes on with the echoes sent from the new start on."""
    ears.listen(1.0)
    ears.hearing.stop()
    ears.wait(799.0)
    ears.hearing.start(ears.time)
    ears.listen(1.0)

    assert (ears.now, ears.hearing.lost) == (2.0, 799.0)


def test_nothing_is_proven_while_we_are_deaf(ears: Ears) -> None:
    """Before the start, after a stop, and when no echo came back for a while."""
    assert Ears(up=False).hearing.deaf(0.0)
    ears.wait(2 * MAX_GAP)
    assert not ears.hearing.deaf(ears.time)
    ears.wait(0.125)
    assert ears.hearing.deaf(ears.time)
    ears.hearing.start(ears.time)
    assert not ears.hearing.deaf(ears.time)
    ears.hearing.stop()
    assert ears.hearing.deaf(ears.time)


def test_a_gap_has_begun_when_no_echo_can_come_in_time_any_more(ears: Ears) -> None:
    """It is over when it is noticed; without a subscription nothing waits to be read."""
    assert not Ears(up=False).hearing.in_gap(60.0)
    ears.wait(MAX_GAP)
    assert not ears.hearing.in_gap(ears.time)
    ears.wait(0.125)
    assert ears.hearing.in_gap(ears.time)
    assert ears.hear(ears.send()) is Echo.GAP
    assert not ears.hearing.in_gap(ears.time)
    ears.wait(60.0)
    ears.hearing.stop()
    assert not ears.hearing.in_gap(ears.time)


def test_how_long_no_echo_came_back_on_a_subscription_that_stands(ears: Ears) -> None:
    """A late one is a sign of life all the same; without a subscription there is nothing to wait for."""
    ears.wait(7.0)
    assert ears.hearing.unanswered_for(ears.time) == 7.0
    echo = ears.send()
    ears.wait(3.0)
    ears.hear(echo)
    assert ears.hearing.unanswered_for(ears.time) == 0.0
    ears.wait(3.0)
    ears.hearing.stop()
    assert ears.hearing.unanswered_for(ears.time) == 0.0
    ears.hearing.start(ears.time)
    assert ears.hearing.unanswered_for(ears.time) == 0.0


# Stamps: no promise is cut short by the echo that has yet to prove the beat.


def test_without_a_gap_a_stamp_is_exact(ears: Ears) -> None:
    """The hearing time at which it was heard, as the echoes after it show."""
    ears.listen(1.0)
    ears.wait(0.125)
    stamp = ears.stamp()
    ears.wait(0.125)
    ears.hear(ears.send())

    assert stamp == 1.125
    assert ears.ago(stamp) == 0.125


def test_a_stamp_is_never_further_ahead_than_two_gaps(ears: Ears) -> None:
    """However long nothing was proven."""
    ears.listen(1.0)
    ears.wait(60.0)

    assert ears.stamp() == 1.0 + 2 * MAX_GAP


def test_stamps_never_go_backwards(ears: Ears) -> None:
    """What is heard after a gap bears a later stamp than what was heard in it, though hearing time stood."""
    ears.listen(1.0)
    echo = ears.send()
    ears.wait(0.75)
    within = ears.stamp()
    ears.hear(echo)
    after = ears.stamp()
    ears.wait(0.125)

    assert within < after
    assert ears.stamp() >= after


def test_a_beat_never_shortens_what_one_before_the_gap_promised(ears: Ears) -> None:
    """Its stamp is never before the hearing time at which it was sent: now is reached by echoes sent before it."""
    ears.listen(1.0)
    ears.stall(5.0)
    ears.listen(0.25)

    assert ears.stamp() >= ears.now == 1.25


def test_what_is_heard_now_was_accepted_after_the_last_echo_that_came_back_was_sent(ears: Ears) -> None:
    """Where nothing was missed; in loop time, and in hearing time."""
    ears.listen(1.0)
    assert accepted_since(ears) == (101.0, 1.0)
    echo = ears.send()
    ears.wait(5.0)
    assert accepted_since(ears) == (101.0, 1.0)
    ears.hear(b"forged")
    assert accepted_since(ears) == (101.0, 1.0)
    assert ears.hear(echo) is Echo.GAP
    assert accepted_since(ears) == (101.0, 1.0)
    ears.listen(0.25)
    assert accepted_since(ears) == (106.25, 1.25)


@pytest.mark.parametrize("anew", [False, True])
def test_what_is_heard_within_the_grace_behind_a_gap_may_have_been_sent_before_it(anew: bool) -> None:  # noqa: FBT001 - a case of two
    """It may have waited in a socket behind which a server stood still, or in a client that had lost its connection."""
    ears = Ears(100.0, gap_grace=2.0)
    ears.listen(3.0)
    if anew:
        ears.wait(5.0)
        ears.hearing.start(ears.time)
    else:
        ears.stall(5.0)
    for _ in range(7):
        ears.listen(0.25)
        assert accepted_since(ears) == (103.0, 3.0)
    ears.listen(0.25)
    assert accepted_since(ears) == (110.0, 5.0)


def test_what_was_under_way_in_a_gap_may_be_so_through_the_next_but_not_for_ever() -> None:
    """A new connection may be followed by a stall at once; ever more of them would make all that is heard look old."""
    ears = Ears(100.0, gap_grace=2.0)
    ears.listen(3.0)
    for since in ((103.0, 3.0), (103.0, 3.0), (115.0, 5.0)):
        ears.stall(5.0)
        ears.listen(1.0)
        assert accepted_since(ears) == since


# Real time, which goes on while we are deaf.


def test_real_time_goes_on_while_we_are_deaf(ears: Ears) -> None:
    """Beats before a gap, in it and after it are dated by the clock of the wall."""
    ears.listen(1.0)
    before = ears.stamp()
    echo = ears.send()
    ears.wait(0.75)
    within = ears.stamp()
    ears.wait(9.25)
    assert ears.hear(echo) is Echo.GAP
    ears.listen(2.0)
    after = ears.stamp()
    ears.listen(0.5)

    assert ears.ago(before) == 12.5
    assert ears.ago(within) == 11.75
    assert ears.ago(after) == 0.5
    assert ears.ago(ears.now) == 0.0


def test_each_gap_since_a_moment_counts(ears: Ears) -> None:
    """Those before it do not."""
    moments = []
    for _ in range(3):
        ears.listen(1.0)
        moments.append((ears.stamp(), ears.time))
        ears.stall(10.0)
    ears.listen(1.0)

    for stamp, time in moments:
        assert ears.ago(stamp) == ears.time - time


def test_what_is_heard_just_after_a_gap_is_not_dated_before_it(ears: Ears) -> None:
    """Not even if hearing time has not moved since."""
    ears.listen(1.0)
    before = ears.stamp()
    ears.stall(100.0)

    assert ears.ago(before) == 100.0
    assert ears.ago(ears.stamp()) < 1.0


def test_a_connection_that_comes_and_goes_leaves_no_endless_trail(ears: Ears) -> None:
    """The oldest gaps are forgotten; a lease that spans more of them is dated a little wrong."""
    for _ in range(GAPS_REMEMBERED + 10):
        ears.listen(0.25)
        ears.hearing.start(ears.time)

    assert len(ears.hearing._gap_ends) == GAPS_REMEMBERED


def test_a_moment_that_lies_ahead_was_not_ago(ears: Ears) -> None:
    """A beat's stamp may lie ahead of what is proven."""
    assert ears.ago(5.0) == 0.0
