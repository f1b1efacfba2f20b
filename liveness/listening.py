"""The duty that listens to itself: echoes go out, come back, and move the clock of the book."""

import asyncio
import secrets
from collections.abc import Callable

import structlog

from liveness.hearing import Echo, Hearing
from liveness.lines import Lines
from liveness.settings import Settings

log = structlog.get_logger("liveness.listening")

TOKEN_BYTES = 16
# A connection that stands and brings no echo for so long (seconds) is deaf, whatever else works on it.
DEAF_SECONDS = 1.5
# Times the grace that is left after a loss: 3 s at the default. A NATS client waits 2 s before it connects again,
# unless told otherwise, and beats a moment later.
RECONNECT_GRACES = 1.5


class Listening:
    """Keeps hearing time, and says to the book what a gap owes to everybody.

    `send(subject, payload)` publishes at once, `give_up(cause)` has the bus make another connection; `clock` is the
    loop's monotonic time. `on_time(now)` is called when hearing time has moved, `on_loss(now)` when beats may have been
    lost before it.
    """

    def __init__(
        self,
        *,
        hearing: Hearing,
        lines: Lines,
        settings: Settings,
        clock: Callable[[], float],
        send: Callable[[str, bytes], bool],
        give_up: Callable[[str], None],
        on_time: Callable[[float], None],
        on_loss: Callable[[float], None],
    ) -> None:
        self._hearing = hearing
        self._lines = lines
        self._grace = settings.gap_grace
        self._interval = settings.echo_interval
        self._patience = max(DEAF_SECONDS, 2 * settings.max_gap)
        self._clock = clock
        self._send = send
        self._give_up = give_up
        self._on_time = on_time
        self._on_loss = on_loss
        self._spoke_at = clock()
        self._subject = settings.subjects.echo(secrets.token_hex(8))

    async def keep(self) -> None:
        """Send echoes, for ever."""
        while True:
            self.speak()
            await asyncio.sleep(self._interval)

    def speak(self) -> None:
        """Send one echo, and give the connection up when none has come back for too long."""
        now = self._clock()
        if now - self._spoke_at > self._patience / 2:
            # We stood still: what comes of that is in the socket, and the connection is not to blame.
            self._hearing.excuse(now)
        self._spoke_at = now
        silent = self._hearing.unanswered_for(now)
        if silent > self._patience:
            # Told once for each connection: a new one begins anew.
            self._hearing.stop()
            self._give_up(f"nothing was heard for {silent:.1f} s, not even ourselves")
            return
        token = secrets.token_bytes(TOKEN_BYTES)
        # Noted first: the moment must not be later than the sending.
        self._hearing.sent(token, now)
        self._send(self._subject, token)

    def hear(self, token: bytes) -> None:
        """Take an echo that came back."""
        now = self._clock()
        before = self._hearing.now
        match self._hearing.heard(token, now):
            case Echo.COUNTED:
                self._on_time(self._hearing.now)
            case Echo.GAP:
                self._lines.grace(self._hearing.now + self._grace)
                log.info("gap", not_counted=round(self._hearing.lost, 3), hearing=round(before, 3))
            case Echo.IGNORED:
                pass

    def up(self) -> None:
        """The subscriptions stand: from here on nothing is lost."""
        self._hearing.start(self._clock())
        self.lost()

    def down(self) -> None:
        """Nothing can be heard any more."""
        self._hearing.stop()

    def lost(self) -> None:
        """Beats may have been lost: every lease is owed a full ttl, and the sweep has heard nothing before.

        A ttl may be shorter than workers need that have lost their connections, too, so they have longer than after a
        gap in which nothing was lost.
        """
        now = self._hearing.stamp(self._clock())
        self._lines.extend(now)
        self._lines.grace(now + RECONNECT_GRACES * self._grace)
        self._on_loss(now)
