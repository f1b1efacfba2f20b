"""Before the verdict: a worker that answers probes is asked once."""

from collections.abc import Callable

import pytest

from liveness.lease import Proof
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.probes import PATIENCE, Probes, lead
from tests.unit.makers import ending_of, holds_live, lapsed, lease_of, live


class Asking:
    """Probes of a book whose `w` answers them, and a bus that notes who was asked."""

    def __init__(self) -> None:
        self.book = LeaseTable(60.0)
        self.now = 0.0
        self.asked: list[str] = []
        self.answers: list[Callable[[bytes | None], None]] = []
        self.connected = True
        self.answers_at_once = False
        self.failed: list[str] = []
        self.probes = Probes(book=self.book, ask=self.ask, on_answer=self.answered, on_failure=self.failed.append)
        live(self.book)
        lease_of(self.book).probe = True

    def ask(self, worker: str, on_answer: Callable[[bytes | None], None]) -> bool:
        """Note a question."""
        self.asked.append(worker)
        self.answers.append(on_answer)
        if self.answers_at_once:
            on_answer(b"")
        return self.connected

    def answered(self, worker: str, _: bytes) -> None:
        """Take an answer as the beat that it is."""
        self.book.beat(worker, self.now, Heartbeat(probe=True))

    def look(self, now: float) -> list[str]:
        """Ask who is about to lapse; return who was asked."""
        self.now = now
        before = len(self.asked)
        self.probes.ask(now)
        return self.asked[before:]

    def said(self, now: float = 10.0) -> object:
        """Let `w` lapse; return what the evidence holds of its probe."""
        assert lapsed(self.book, now) == ["w"]
        self.probes.note(lease_of(self.book))
        return (ending_of(self.book).details or {}).get("probe")


@pytest.fixture
def asking() -> Asking:
    """`w` has a ttl of 10 s and lapses at 10."""
    return Asking()


def test_a_worker_is_asked_once_when_it_is_about_to_lapse(asking: Asking) -> None:
    """Not before, and not again for the same promise."""
    assert asking.look(8.875) == []
    assert asking.look(9.0) == ["w"]
    assert asking.look(9.25) == []
    assert asking.probes.asked == 1


def test_who_does_not_answer_probes_is_not_asked(asking: Asking) -> None:
    """It would only look as if it were silent."""
    lease_of(asking.book).probe = False

    assert asking.look(9.5) == []
    assert asking.said() is None


def test_any_answer_is_a_heartbeat(asking: Asking) -> None:
    """The promise counts from it, and the next one is asked for when that ends."""
    asking.look(9.0)
    asking.answers[0](b"")

    assert lapsed(asking.book, 18.9) == []
    assert asking.look(18.0) == ["w"]


def test_no_answer_is_evidence(asking: Asking) -> None:
    """Of nothing but itself: the lease lapses when it would have lapsed."""
    asking.look(9.0)

    assert lapsed(asking.book, 9.875) == []
    assert asking.said() == "no answer"


def test_no_responders_proves_nothing(asking: Asking) -> None:
    """Behind a NATS server that just died, living workers answer nothing either."""
    asking.look(9.0)
    asking.answers[0](None)

    assert holds_live(asking.book, "w")
    assert lapsed(asking.book, 9.875) == []
    assert asking.said() == "no responders"


def test_a_question_that_could_not_be_put_is_no_evidence_of_silence(asking: Asking) -> None:
    """It says so."""
    asking.connected = False
    asking.look(9.0)

    assert asking.said() == "could not be asked"


def test_who_does_not_answer_in_time_has_failed(asking: Asking) -> None:
    """It is told once, before the lease lapses."""
    asking.look(9.0)
    asking.look(9.0 + PATIENCE / 2)
    assert asking.failed == []
    asking.look(9.0 + PATIENCE)
    asking.look(9.0 + 2 * PATIENCE)

    assert asking.failed == ["w"]


def test_whom_nobody_answers_for_has_failed_at_once(asking: Asking) -> None:
    """NATS says so, and nobody has to be waited for."""
    asking.look(9.0)
    asking.answers[0](None)
    asking.look(9.0)

    assert asking.failed == ["w"]


@pytest.mark.parametrize("connected", [True, False])
def test_who_answered_or_could_not_be_asked_has_not_failed(asking: Asking, *, connected: bool) -> None:
    """The one beats again, and of the other nothing was said."""
    asking.connected = asking.answers_at_once = connected
    asking.look(9.0)
    asking.answers_at_once = False
    asking.look(9.5)

    assert asking.failed == []


def test_what_was_said_of_an_earlier_promise_is_not_evidence(asking: Asking) -> None:
    """It beat since, and does not answer probes any more."""
    asking.look(9.0)
    asking.answers[0](None)
    asking.book.beat("w", 9.5, Heartbeat())
    asking.look(19.0)

    assert asking.said(19.5) is None


def test_what_a_certificate_knew_is_kept_beside_it(asking: Asking) -> None:
    """The details of an ending are added to."""
    asking.look(9.0)
    asking.book.release("w", None, 9.5, Proof("died", {"signal": 9}))
    asking.probes.note(lease_of(asking.book))

    assert ending_of(asking.book).details == {"signal": 9, "probe": "no answer"}


def test_questions_about_who_left_are_forgotten(asking: Asking) -> None:
    """Nothing is kept of a name that is out of the book."""
    asking.look(9.0)
    asking.book.forget("w")
    asking.look(9.5)

    assert not asking.probes._open


def test_an_answer_changes_the_lines_while_others_are_asked(asking: Asking) -> None:
    """A bus that answers at once disturbs nobody."""
    for number in range(5):
        live(asking.book, f"x{number}", now=0.0)
        lease_of(asking.book, f"x{number}").probe = True
    asking.answers_at_once = True

    assert sorted(asking.look(9.5)) == ["w", "x0", "x1", "x2", "x3", "x4"]
    assert lapsed(asking.book, 19.0) == []


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(0.5, 0.25), (1.0, 0.5), (2.0, 0.5), (3.0, 0.75), (4.0, 1.0), (60.0, 1.0)]
)
def test_how_long_before_the_end_a_worker_is_asked(ttl: float, seconds: float) -> None:
    """Between half a second and one; of a very short promise, half."""
    assert lead(ttl) == seconds
