"""What Postgres is offered about a life that ends, and the evidence that is kept of it."""

from typing import Any

import pytest

from liveness.cases import CHECKPOINT_SLACK, case_of
from liveness.group import Group
from liveness.lease import Proof
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.verdicts import Case
from tests.unit.makers import Ears, ending_of, lease_of, live


class Court:
    """A book whose `w` was heard after a second, and ears that go on hearing."""

    def __init__(self) -> None:
        self.book = LeaseTable(60.0)
        self.ears = Ears(1000.0)
        self.ears.listen(1.0)

    def heard(self, **fields: Any) -> None:
        """`w` beats."""
        self.book.beat("w", self.ears.stamp(), Heartbeat(**fields), self.ears.time)

    def hello(self, incarnation: str, uptime: float | None = None, waited: float = 0.0) -> None:
        """A new process of `w` says hello, which may have waited so long."""
        beat = Heartbeat(incarnation=incarnation, uptime=uptime)
        self.book.hello("w", self.ears.stamp(), beat, self.ears.time, waited)

    def lapse(self) -> Case:
        """Let what is due lapse, and return the case of `w`."""
        self.book.lapse(self.ears.now)
        return self.case()

    def case(self) -> Case:
        """Return the case of `w`."""
        return case_of(lease_of(self.book), ending_of(self.book), self.ears.hearing, self.ears.time)


@pytest.fixture
def court() -> Court:
    """`w` lives as "a" under epoch 5, with a ttl of 10 s."""
    court = Court()
    live(court.book, now=court.ears.stamp(), epoch=5, incarnation="a")
    return court


def test_a_lapse_is_offered_with_what_may_spare_it(court: Court) -> None:
    """A beat in the registry spares it only if it is younger than what we heard ourselves."""
    court.ears.listen(10.5)
    case = court.lapse()

    assert (case.worker, case.epoch, case.incarnation, case.reason, case.ttl) == ("w", 5, "a", "lapsed", 10.0)
    assert (case.silent_for, case.overdue, case.spare_within) == (10.5, 0.5, 10.5 - CHECKPOINT_SLACK)
    assert (case.untouched_for, case.must_be_up, case.measured_at) == (None, None, 1011.5)


def test_a_beat_in_the_registry_spares_for_a_ttl_at_most(court: Court) -> None:
    """However long it took us to ask."""
    court.ears.listen(30.0)

    assert court.lapse().spare_within == 10.0


def test_dates_are_measured_in_real_time_and_judged_in_hearing_time(court: Court) -> None:
    """Gaps of 150 s lie between the last beat and the lapse; the evidence shows both clocks."""
    court.ears.listen(4.0)
    court.ears.stall(100.0)
    court.ears.listen(6.5)
    court.ears.stall(50.0)
    court.ears.listen(0.5)
    case = court.lapse()

    # The second gap lies after the deadline.
    assert (case.silent_for, case.overdue, case.spare_within) == (161.0, 51.0, 10.0)
    assert case.evidence == {
        "why": "no heartbeat for 11.000 s of hearing; ttl 10 s",
        "ttl": 10.0,
        "silent_for": 11.0,
        "listened_for": 11.0,
        "overdue": 1.0,
        "hearing": {"now": 12.0, "not_counted": 150.0, "gaps": 3},
        "via": None,
        "storm": None,
    }


def test_the_way_by_which_it_was_heard_and_a_storm_are_evidence(court: Court) -> None:
    """Why it was held and then let go."""
    lease_of(court.book).group = Group("n1")
    court.ears.listen(11.0)
    court.lapse()
    ending_of(court.book).let_go = True
    ending_of(court.book).details = {"probe": "no responders"}
    evidence = court.case().evidence

    assert (evidence["via"], evidence["storm"]) == ("n1", "held, then let go")
    assert evidence["details"] == {"probe": "no responders"}


def test_the_registry_cannot_spare_a_life_that_ended_on_proof(court: Court) -> None:
    """A goodbye is a goodbye; there was no deadline that passed."""
    court.book.release("w", "a", court.ears.now, Proof("died", {"signal": 9}))
    court.ears.listen(60.0)
    case = court.case()

    assert (case.reason, case.overdue, case.spare_within, case.untouched_for) == ("died", None, None, None)
    assert (case.evidence["details"], case.evidence["overdue"]) == ({"signal": 9}, None)


def test_what_the_next_life_touched_is_left_to_it(court: Court) -> None:
    """Only rows untouched since its beginning are offered; the incarnation is the one that ends."""
    court.book.hello("w", court.ears.stamp(), Heartbeat(incarnation="b"), court.ears.time - 2.0)
    court.ears.stall(5.0)
    case = court.case()

    assert (case.reason, case.incarnation, case.untouched_for) == ("restarted", "a", 7.0)


def test_a_beginning_that_lies_ahead_is_now(court: Court) -> None:
    """No negative time is offered."""
    court.book.hello("w", court.ears.stamp(), Heartbeat(incarnation="b"), court.ears.time + 2.0)

    assert court.case().untouched_for == 0.0


def test_a_lease_that_was_only_restored_says_so() -> None:
    """No last heartbeat is invented for it; a registry's beat since then spares it."""
    court = Court()
    court.book.restore("w", court.ears.now, 10.0, epoch=1)
    court.ears.listen(10.0)
    case = court.lapse()

    assert (case.silent_for, case.spare_within) == (None, 9.0)
    assert case.evidence["silent_for"] is None
    assert case.evidence["why"] == "nothing was heard of it in 10.000 s of listening; ttl 10 s"


def test_a_beat_just_before_the_end_is_not_in_the_future(court: Court) -> None:
    """Its stamp may lie ahead of what is proven."""
    court.ears.wait(0.25)
    court.heard(incarnation="a")
    court.book.end("w", court.ears.now, Proof("operator"))
    case = court.case()

    assert case.silent_for == 0.0
    assert case.evidence["silent_for"] == case.evidence["listened_for"] == 0.0


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("released", "the worker said goodbye"),
        ("died", "whoever saw the process end said so"),
        ("operator", "an operator ended it"),
    ],
)
def test_every_proof_has_its_sentence(court: Court, reason: str, why: str) -> None:
    """For whoever asks why."""
    court.book.end("w", court.ears.now, Proof(reason))

    assert court.case().evidence["why"] == why


def test_a_restart_has_its_sentence(court: Court) -> None:
    """It says what ended the life."""
    court.book.hello("w", court.ears.stamp(), Heartbeat(incarnation="b"), court.ears.time)

    assert court.case().evidence["why"] == "a new incarnation of the name is there"


def test_what_spares_a_lapse_is_measured_in_real_time(court: Court) -> None:
    """A beat that the registry took while we were deaf is younger than any of ours."""
    court.ears.listen(5.0)
    court.ears.stall(100.0)
    court.ears.listen(5.25)

    assert court.lapse().spare_within == 10.0


def test_a_lapse_whose_verdict_waited_while_we_were_deaf_takes_nothing_touched_since(court: Court) -> None:
    """Another process of the name may have begun meanwhile, and nobody heard it."""
    court.ears.listen(10.25)
    assert court.lapse().untouched_for is None
    court.ears.stall(30.0)

    # The ttl had run out a quarter of a second before.
    assert court.case().untouched_for == 30.25
    court.ears.listen(5.0)
    assert court.case().untouched_for == 35.25


def test_a_verdict_that_waited_while_we_heard_takes_everything(court: Court) -> None:
    """Whoever had begun would have been heard; a gap before the deadline is no matter."""
    court.ears.listen(2.0)
    court.ears.stall(30.0)
    court.ears.listen(9.0)
    court.lapse()
    court.ears.listen(60.0)

    assert court.case().untouched_for is None


def test_a_goodbye_takes_what_was_touched_before_it_was_read(court: Court) -> None:
    """Its process touches nothing any more; whoever begins while the verdict waits may claim before he is heard."""
    court.book.release("w", "a", court.ears.now, Proof("released", told_at=court.ears.time))
    court.ears.stall(30.0)
    court.ears.listen(2.0)

    assert (court.case().untouched_for, court.case().told) == (32.0, True)


def test_who_is_known_to_have_come_after_a_goodbye_keeps_what_he_touched(court: Court) -> None:
    """Since his beginning; that is not the word of the end, up to which nothing may be left."""
    court.book.release("w", "a", court.ears.now, Proof("released", told_at=court.ears.time))
    court.ears.listen(5.0)
    court.heard(incarnation="b", uptime=2.0)
    court.ears.listen(1.0)

    assert (court.case().untouched_for, court.case().told) == (3.0, False)


def test_what_was_touched_just_before_a_hello_is_not_left_to_who_said_it(court: Court) -> None:
    """The reckoning may err by a moment, and has to err to one side: who waits for an answer holds nothing yet."""
    court.heard(incarnation="a")
    court.hello("b")
    court.ears.listen(3.0)
    court.heard(incarnation="b", uptime=3.0)

    assert (court.case().reason, court.case().untouched_for, court.case().told) == ("restarted", 3.0, True)


def test_what_was_touched_just_before_a_goodbye_is_not_left_to_who_says_hello_then(court: Court) -> None:
    """A process may close one connection and open the next within a moment."""
    court.heard(incarnation="a")
    court.book.release("w", "a", court.ears.now, Proof("released", told_at=court.ears.time))
    court.hello("b")
    court.ears.listen(2.0)

    assert (court.case().reason, court.case().untouched_for, court.case().told) == ("released", 2.0, True)


def test_who_beat_before_his_hello_may_hold_work_and_keeps_it(court: Court) -> None:
    """Then the reckoning errs to his side."""
    court.heard(incarnation="a")
    court.ears.listen(1.0)
    court.heard(incarnation="b", uptime=0.5)
    court.ears.listen(1.0)
    court.hello("b", uptime=1.5)

    assert (court.case().reason, court.case().untouched_for, court.case().told) == ("restarted", 1.5, False)


def test_who_may_have_begun_behind_a_hello_that_was_read_late_keeps_what_he_touched(court: Court) -> None:
    """A third process beats, and may have claimed by then: the reckoning errs to its side."""
    court.heard(incarnation="a")
    court.ears.listen(5.0)
    court.hello("b", waited=3.0)
    court.ears.listen(1.0)
    court.heard(incarnation="c", uptime=1.5)

    assert (court.case().untouched_for, court.case().told) == (1.5, False)


def test_an_operators_word_takes_everything(court: Court) -> None:
    """The worker may live, and touch its work up to the last moment."""
    court.book.end("w", court.ears.now, Proof("operator"))
    court.ears.listen(2.0)

    assert court.case().untouched_for is None


def test_the_record_of_a_restart_that_beats_told_of_says_when_the_former_process_was_heard_last(court: Court) -> None:
    """And not the new one, whose beats were the lease's until it was believed."""
    court.ears.listen(2.0)
    court.heard(incarnation="a", uptime=100.0)
    for uptime in (1.0, 4.0):
        court.ears.listen(3.0)
        court.heard(incarnation="b", uptime=uptime)

    assert (court.case().reason, court.case().incarnation, court.case().silent_for) == ("restarted", "a", 6.0)
