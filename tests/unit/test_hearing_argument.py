"""The whole argument of `hearing`, with a server that delays, stalls and drops."""

from itertools import accumulate
from operator import itemgetter
from typing import NamedTuple

from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from liveness.hearing import Echo, Hearing
from liveness.lines import Lines
from tests.unit.makers import MAX_GAP

# In 32nds of a second.
UNIT = 1 / 32
TTL = 2.0

TIMES = st.integers(0, 20)


class Message(NamedTuple):
    """Something on its way: when the server accepted it, what it is, and for how long we stall before we hear it."""

    accepted: int
    what: str
    number: int
    stall: int = 0


def accepted(sent: list[tuple[int, int]]) -> list[int]:
    """Return when the server accepts what one connection sent then, so much delayed: in its order."""
    return list(accumulate((at + delay for at, delay in sent), max))


def events_of(echoes_sent: list[int], messages: list[Message]) -> list[tuple[int, bool, str, int]]:
    """Return what happens to us, in order: time, whether it is heard, what, and its number.

    One subscriber is handed what the server accepted in the order in which it was.
    """
    messages = sorted(messages)
    heard = accumulate((message.accepted + message.stall for message in messages), max)
    return sorted(
        [(at, False, "send", number) for number, at in enumerate(echoes_sent)]
        + [(at, True, message.what, message.number) for at, message in zip(heard, messages, strict=True)],
        key=itemgetter(0, 1),
    )


class Listener:
    """A hearing and one lease, which check at every step what must hold."""

    def __init__(self) -> None:
        self.hearing = Hearing(0.0, max_gap=MAX_GAP)
        self.hearing.start(0.0)
        self.lines = Lines()
        self.lease = self.lines.new("w", TTL, 0.0)
        self.lapsed_by: float | None = None
        self.noted: set[int] = set()
        self.stamp = 0.0

    def beat(self, number: int, now: float) -> None:
        """A beat is heard: its stamp never goes back, is not before what is proven, nor far ahead of it."""
        stamp = self.hearing.stamp(now)
        assert max(self.stamp, self.hearing.now) <= stamp <= self.hearing.now + 2 * MAX_GAP + 1e-9
        self.stamp = stamp
        self.noted.add(number)
        if self.lapsed_by is None:
            self.lines.renew(self.lease, stamp)

    def echo(self, number: int, sent: float, now: float) -> bool:
        """An echo is heard; say whether it counted, and hearing time is its sending, less what was lost."""
        before, lost = self.hearing.now, self.hearing.lost
        counted = self.hearing.heard(b"%d" % number, now) is Echo.COUNTED
        assert self.hearing.lost >= lost
        assert self.hearing.now >= before
        if counted:
            assert (self.hearing.now, self.hearing.lost) == (sent - lost, lost)
            assert now - sent <= MAX_GAP
            assert self.hearing.now - before <= MAX_GAP
            if self.lapsed_by is None and self.lines.take_lapsed(self.hearing.now):
                self.lapsed_by = sent
        else:
            assert self.hearing.now == before
        return counted


@effort(max_examples=300)
@given(
    echoes=st.lists(st.tuples(st.integers(1, 20), TIMES, TIMES, st.integers(0, 9)), max_size=60),
    beats=st.lists(st.tuples(st.integers(1, 90), TIMES), max_size=12),
)
def test_hearing_time_is_proven_time(echoes: list[tuple[int, int, int, int]], beats: list[tuple[int, int]]) -> None:
    """It is the last counted echo's sending less what was lost, and no beat that the server had by then is missing.

    So a lease lapses only if the server accepted no beat in the ttl before the echo that made it lapse.
    """
    echoes_sent = list(accumulate(wait for wait, *_ in echoes))
    echoes_in = accepted([(at, delay) for at, (_, delay, _, _) in zip(echoes_sent, echoes, strict=True)])
    beats_sent = accumulate(wait for wait, _ in beats)
    beats_in = accepted([(at, delay) for at, (_, delay) in zip(beats_sent, beats, strict=True)])
    messages = [Message(at, "beat", number) for number, at in enumerate(beats_in)]
    # One in ten of the echoes is dropped.
    messages += [Message(echoes_in[number], "echo", number, echo[2]) for number, echo in enumerate(echoes) if echo[3]]

    listener = Listener()
    for at, _, what, number in events_of(echoes_sent, messages):
        now = at * UNIT
        if what == "send":
            listener.hearing.sent(b"%d" % number, now)
        elif what == "beat":
            listener.beat(number, now)
        elif listener.echo(number, echoes_sent[number] * UNIT, now):
            assert {beat for beat, by in enumerate(beats_in) if by < echoes_in[number]} <= listener.noted

    if (by := listener.lapsed_by) is not None:
        assert not [at for at in beats_in if by - TTL < at * UNIT <= by]
