"""The duty that listens to itself, and what it says to the book."""

import pytest
from structlog.testing import capture_logs

from liveness.hearing import Hearing
from liveness.lines import Lines
from liveness.listening import DEAF_SECONDS, RECONNECT_GRACES, TOKEN_BYTES, Listening
from liveness.settings import Settings

GRACE = Settings().gap_grace


class Loop:
    """A listening whose bus and callbacks note what they are told, and whose time the test lets pass."""

    def __init__(self, settings: Settings) -> None:
        self.time = 100.0
        self.sent: list[tuple[str, bytes]] = []
        self.given_up: list[str] = []
        self.looks: list[float] = []
        self.losses: list[float] = []
        self.hearing = Hearing(self.time, max_gap=settings.max_gap)
        self.lines = Lines()
        self.listening = Listening(
            hearing=self.hearing,
            lines=self.lines,
            settings=settings,
            clock=lambda: self.time,
            send=self.send,
            give_up=self.given_up.append,
            on_time=self.looks.append,
            on_loss=self.losses.append,
        )

    def send(self, subject: str, token: bytes) -> bool:
        """Note what is sent."""
        self.sent.append((subject, token))
        return True

    def speak(self) -> bytes:
        """Send an echo and return its token."""
        self.listening.speak()
        return self.sent[-1][1]

    def listen(self, seconds: float) -> None:
        """Hear well for so long."""
        for _ in range(round(4 * seconds)):
            self.time += 0.25
            self.listening.hear(self.speak())

    def call(self, seconds: float) -> None:
        """Speak for so long, and hear nothing."""
        for _ in range(round(4 * seconds)):
            self.time += 0.25
            self.listening.speak()

    def stall(self, seconds: float) -> None:
        """Let one echo come back so late."""
        token = self.speak()
        self.time += seconds
        self.listening.hear(token)


@pytest.fixture
def loop() -> Loop:
    """Listening on a subscription that stands since 100, with the default settings."""
    loop = Loop(Settings())
    loop.listening.up()
    return loop


def test_an_echo_goes_out_with_a_secret_on_the_subject_of_the_heartbeats(loop: Loop) -> None:
    """Each with another one, all on the subject of this replica."""
    tokens = {loop.speak() for _ in range(100)}

    assert len(tokens) == 100
    assert {len(token) for token in tokens} == {TOKEN_BYTES}
    (subject,) = {subject for subject, _ in loop.sent}
    assert subject.startswith("liveness.heartbeat.$liveness.echo.")
    assert Loop(Settings()).listening._subject != subject


def test_an_echo_that_comes_back_moves_the_clock_and_is_told(loop: Loop) -> None:
    """The way out looks when hearing time has moved, and only then."""
    loop.time += 0.25
    token = loop.speak()
    loop.listening.hear(token)
    loop.listening.hear(token)
    loop.listening.hear(b"forged")

    assert loop.looks == [0.25]


def test_the_moment_of_an_echo_is_noted_before_it_is_sent(loop: Loop) -> None:
    """However long the sending takes: the other way round, a beat could be overtaken."""
    sending: list[float] = []

    def slow(_subject: str, _token: bytes) -> bool:
        sending.append(loop.time)
        loop.time += 0.25
        return True

    loop.listening._send = slow
    loop.time += 0.25
    loop.listening.speak()
    loop.listening.hear(next(iter(loop.hearing._sent)))

    assert (sending, loop.hearing.now) == ([100.25], 0.25)


def test_a_gap_leaves_every_lease_its_grace(loop: Loop) -> None:
    """Whatever its ttl has left, and told in the log."""
    loop.listen(5.0)
    soon, later = loop.lines.new("soon", 1.0, 4.5), loop.lines.new("later", 60.0, 4.5)
    with capture_logs() as logs:
        loop.stall(0.75)

    assert [loop.lines.deadline(lease) for lease in (soon, later)] == [5.0 + GRACE, 64.5]
    assert [line["event"] for line in logs] == ["gap"]
    assert len(loop.losses) == 1


def test_without_a_gap_nobody_is_owed_anything(loop: Loop) -> None:
    """A lease lapses to the tick."""
    loop.listen(3.0)
    lease = loop.lines.new("w", 1.0, 3.0)
    loop.listen(1.0)

    assert loop.lines.deadline(lease) == 4.0


def test_a_new_connection_owes_everybody_a_full_ttl(loop: Loop) -> None:
    """Beats were lost, and the workers connect again as well: whoever promised little has time for that."""
    long, middle, short = (loop.lines.new(f"{ttl}", ttl, since) for ttl, since in [(10.0, 0.0), (2.0, 4.5), (0.5, 4.5)])
    loop.listen(5.0)
    loop.listening.down()
    loop.time += 100.0
    loop.listening.up()

    assert loop.lines.deadline(long) == pytest.approx(5.0 + 10.0)
    assert loop.lines.deadline(middle) == pytest.approx(5.0 + RECONNECT_GRACES * GRACE)
    # Three ttls in all are enough even so.
    assert loop.lines.deadline(short) == 6.0
    # And the sweep listens anew.
    assert loop.losses == [pytest.approx(0.0), pytest.approx(5.0)]
    loop.listen(1.0)
    assert loop.hearing.now == 6.0


def test_a_drop_owes_everybody_a_full_ttl_from_the_drop(loop: Loop) -> None:
    """What was lost may have been sent just now, later than what is proven."""
    long, short = loop.lines.new("long", 10.0, 0.0), loop.lines.new("short", 2.0, 5.0)
    loop.listen(5.0)
    loop.time += 0.5
    loop.listening.lost()

    assert [loop.lines.deadline(lease) for lease in (long, short)] == [15.5, 5.5 + RECONNECT_GRACES * GRACE]
    assert loop.losses[-1] == 5.5


def test_nothing_is_heard_while_the_connection_is_down(loop: Loop) -> None:
    """Not even an echo of before."""
    token = loop.speak()
    loop.listening.down()
    loop.time += 0.25
    loop.listening.hear(token)
    loop.listening.hear(loop.speak())

    assert loop.looks == []


def test_a_connection_on_which_we_do_not_hear_ourselves_is_given_up(loop: Loop) -> None:
    """Once: the next one begins anew. Meanwhile the sweep and the readiness page know that we are deaf."""
    loop.listen(1.0)
    loop.call(DEAF_SECONDS)
    assert loop.given_up == []
    before = len(loop.sent)
    loop.call(0.25)

    assert loop.given_up == ["nothing was heard for 1.8 s, not even ourselves"]
    assert len(loop.sent) == before
    assert loop.hearing.deaf(loop.time)
    loop.call(60.0)
    assert len(loop.given_up) == 1
    loop.listening.up()
    loop.call(DEAF_SECONDS + 0.25)
    assert len(loop.given_up) == 2


def test_a_connection_is_not_to_blame_for_the_time_in_which_we_stood_still(loop: Loop) -> None:
    """What came meanwhile waits in its socket, beats among it: a new connection would lose them."""
    loop.listen(1.0)
    loop.time += 60.0
    loop.speak()
    assert loop.given_up == []
    # If it stays silent when it is spoken to, it is given up as any other.
    loop.call(DEAF_SECONDS)
    assert loop.given_up == []
    loop.call(0.25)

    assert len(loop.given_up) == 1


def test_a_slow_loop_does_not_excuse_a_silent_connection(loop: Loop) -> None:
    """Who is late with every echo has spoken all the same, and often enough."""
    loop.listen(1.0)
    for _ in range(3):
        loop.time += DEAF_SECONDS / 2
        loop.listening.speak()

    assert len(loop.given_up) == 1


def test_a_wide_gap_is_waited_for_before_the_connection_is_given_up() -> None:
    """Who set max_gap to 5 s has a network that needs it."""
    loop = Loop(Settings(max_gap=5.0))
    loop.listening.up()
    loop.call(10.0)
    assert loop.given_up == []
    loop.call(0.25)

    assert len(loop.given_up) == 1
