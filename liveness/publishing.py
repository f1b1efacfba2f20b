"""Events to a JetStream stream: many under way at once, one inbox for all acknowledgements, and little read of each.

What nats-py does for each event (a future, a dict of headers, a message object for the acknowledgement) costs three
times what all of this does.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from liveness.link import Link
from liveness.wire import NO_RESPONDERS, status_of

# Events under way at once: what the stream takes in some 0.1 s, so that no round trip counts, and little to repeat when
# it does not answer.
WINDOW: Final = 4_000
# What waits to be sent at most: half of what a link takes, so that beats' answers and echoes have room beside it.
MOST_WAITING_BYTES: Final = 1 << 19
# How long nothing at all may be acknowledged.
ACK_SECONDS: Final = 5.0
# After so many events, everybody else has a turn: within a fraction of a millisecond.
_TURN_EVERY: Final = 50
# As `EventHeaders`; a traceparent may follow.
_HEADERS: Final = (
    "NATS/1.0\r\nNats-Msg-Id: %s\r\nNats-Expected-Stream: %s\r\nContent-Type: application/cloudevents+json\r\n%s\r\n"
)


class Event(msgspec.Struct, frozen=True):
    """An event ready to be published; `id` becomes `Nats-Msg-Id`."""

    id: str
    subject: str
    payload: bytes
    # Of the span in which it was written (W3C).
    traceparent: str | None = None


class _Fault(msgspec.Struct):
    description: str = ""


class _Ack(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    error: _Fault | None = None


class Publisher:
    """Publishes events over one link. To be made before the link is proven to stand: it subscribes an inbox."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._inbox = link.new_inbox()
        self._sent = 0
        # What waits for its acknowledgement: number in the reply subject to position in the batch.
        self._waiting: dict[bytes, int] = {}
        self._acknowledged: list[int] = []
        self._complaint: str | None = None
        self._stream = ""
        self._good = b""
        self._progress = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        link.listen(f"{self._inbox}.*", self._answered)

    async def publish(self, stream: str, events: Sequence[Event]) -> tuple[list[int], str | None]:
        """Publish to `stream`; return the positions of those that it acknowledged, and a complaint or None.

        Nothing more is sent once one was refused.
        """
        async with self._one_at_a_time:
            self._stream, self._good = stream, b'{"stream":"%b", "seq":' % stream.encode()
            self._waiting, self._acknowledged, self._complaint = {}, [], None
            # Expected-Stream: a host's stream on the same subjects must not acknowledge in our stream's place.
            for position, event in enumerate(events):
                if not await self._room(position):
                    break
                self._sent += 1
                reply = f"{self._inbox}.{self._sent}"
                traced = f"traceparent: {event.traceparent}\r\n" if event.traceparent else ""
                headers = (_HEADERS % (event.id, stream, traced)).encode()
                if not self._link.send(event.subject, event.payload, reply, headers):
                    self._complaint = "NATS did not take an event: too large, or no connection"
                    break
                self._waiting[b"%d" % self._sent] = position
            while self._waiting and await self._progressed():
                pass
            self._waiting = {}
            return sorted(self._acknowledged), self._complaint

    async def _room(self, position: int) -> bool:
        """Wait until the next one may be sent; False when none may any more."""
        if position % _TURN_EVERY == 0:
            await asyncio.sleep(0)
        while self._complaint is None and (
            len(self._waiting) >= WINDOW or (self._waiting and self._link.unsent > MOST_WAITING_BYTES)
        ):
            await self._progressed()
        return self._complaint is None

    async def _progressed(self) -> bool:
        """Wait for an acknowledgement, or anything else that there is to say; False when there will be none."""
        self._progress.clear()
        answered = asyncio.ensure_future(self._progress.wait())
        either: set[asyncio.Future[Any]] = {answered, self._link.lost}
        try:
            await asyncio.wait(either, timeout=ACK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answered.cancel()
        if self._progress.is_set():
            return True
        lost = self._link.lost.done()
        self._complaint = self._complaint or (
            "the connection was lost" if lost else f"no acknowledgement within {ACK_SECONDS:g} s"
        )
        return False

    def _answered(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        position = self._waiting.pop(subject[len(self._inbox) + 1 :], None)
        if position is None:
            return
        self._progress.set()
        if payload.startswith(self._good) or (refusal := self._refusal(headers, payload)) is None:
            self._acknowledged.append(position)
        else:
            self._complaint = self._complaint or refusal

    def _refusal(self, headers: bytes, payload: bytes) -> str | None:
        if not payload and status_of(headers) == NO_RESPONDERS:
            return "no stream takes the events"
        try:
            ack = msgspec.json.decode(payload, type=_Ack)
        except msgspec.DecodeError:
            return "what came was no acknowledgement"
        if ack.error is not None:
            return ack.error.description or "the stream refuses"
        return None if ack.stream == self._stream and ack.seq else f"another stream took it: {ack.stream!r}"
