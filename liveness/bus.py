"""The bus: one link to NATS at a time, and the next one whenever it is lost, for ever.

There is one way down and one way up. Both are told to whoever listens (`on_down`, `on_up`), because silence only counts
while we can hear; a new link subscribes anew, and is up only when the server has proven that it took the subscriptions.
On the service's side only this file and `link` import nats.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import structlog
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js import api as js_api
from nats.js import errors as js_errors

from liveness.errors import CannotStartError, NoServiceError, SettingsError
from liveness.link import Link, servers_of, shown

log = structlog.get_logger("liveness.bus")

CONNECT_SECONDS = 3
# A round trip to the server is asked for this often, and the connection given up when it takes this long.
CHECK_SECONDS = 1.0
ANSWER_SECONDS = 2
# The first wait between two attempts to connect, and the longest.
BACKOFF_LEAST, BACKOFF_MOST = 0.1, 2.0
# How long acknowledgements of a batch of events are waited for.
ACK_SECONDS = 5.0
# JetStream's own default is 2 minutes; a relay that was away longer may publish again what is in the stream already.
DUPLICATE_WINDOW_SECONDS = 600.0
# JetStream answers nothing for a moment after its server started; this long is not a moment any more.
JETSTREAM_START_SECONDS = 3.0
_SUBJECTS_OVERLAP = 10065
_JETSTREAM_NOT_ENABLED = {10039, 10076}

Sink = Callable[[str, bytes, str], None]


class Event(msgspec.Struct, frozen=True):
    """An event ready to be published; `id` becomes `Nats-Msg-Id`."""

    id: str
    subject: str
    payload: bytes


class Bus:
    """One connection to NATS at a time, for ever, with the subscriptions that were asked for."""

    def __init__(self, url: str, name: str = "liveness", inbox_prefix: str = "_INBOX") -> None:
        """`url`: one server, or several separated by commas. Raises SettingsError for what is no address."""
        try:
            self._servers = servers_of(url)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self._name = name
        self._inbox_prefix = inbox_prefix
        self._sinks: list[tuple[str, Sink]] = []
        self._link: Link | None = None
        self._jetstream: JetStreamContext | None = None
        self._up = asyncio.Event()
        self._refusal: str | None = None
        self._fault: Exception | None = None
        self.faults: dict[str, int] = {}
        self.on_up: Callable[[], None] = lambda: None
        self.on_down: Callable[[], None] = lambda: None
        # Messages were dropped: whatever was in them was not heard.
        self.on_drop: Callable[[], None] = lambda: None

    @property
    def connected(self) -> bool:
        """Whether the subscriptions stand."""
        return self._up.is_set()

    def subscribe(self, subject: str, sink: Sink) -> None:
        """Give every message on `subject` to `sink(subject, payload, reply)`, on this and all later connections.

        To be called before `connect`. The sink is synchronous; what it raises is logged and counted, and the next
        message is delivered all the same.
        """
        self._sinks.append((subject, sink))

    async def connect(self, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Wait, with back-off, for the first connection.

        `on_wait` is told the cause, once per cause. Raises CannotStartError when NATS refuses us.
        """
        told: set[str] = set()
        wait = BACKOFF_LEAST
        while True:
            try:
                return await self._open()
            except CannotStartError:
                raise
            except Exception as error:
                fault = self._fault or error
                if isinstance(fault, nats_errors.AuthorizationError) or "authorization" in str(fault).lower():
                    raise CannotStartError(
                        f"NATS at {shown(self._servers)} refuses us: {fault}: check nats_url"
                    ) from error
                cause = str(fault) or type(fault).__name__
                if cause not in told:
                    told.add(cause)
                    on_wait(cause)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
                wait = min(wait * 2, BACKOFF_MOST)

    async def keep(self) -> None:
        """Watch the connection, and make the next one whenever it fails, for ever."""
        while True:
            cause = await self._watch()
            self._up.clear()
            self.on_down()
            self.faults["lost"] = self.faults.get("lost", 0) + 1
            log.warning("nats_lost", cause=cause)
            await self._discard()
            await self.connect_again()
            log.info("nats_back")

    async def connect_again(self) -> None:
        """Wait for a connection, whatever stands against it: who was let in once may be let in again."""
        while True:
            with contextlib.suppress(CannotStartError):
                return await self.connect()
            await asyncio.sleep(BACKOFF_MOST * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing

    async def publish(self, subject: str, payload: bytes) -> bool:
        """Publish, at most once; return False when there is no connection to publish on."""
        link = self._link
        if link is None or not self.connected:
            return False
        try:
            await link.publish(subject, payload)
        except (nats_errors.Error, OSError):
            return False
        return True

    async def request(self, subject: str, payload: bytes, seconds: float) -> bytes:
        """Return the answer to a request. Raises NoServiceError when there is none within `seconds`."""
        if self._link is None:
            raise NoServiceError("not connected to NATS")
        try:
            return bytes((await self._link.request(subject, payload, timeout=seconds)).data)
        except nats_errors.NoRespondersError as error:
            raise NoServiceError("no liveness service answers on this NATS: is `liveness serve` running?") from error
        except (nats_errors.Error, OSError, TimeoutError) as error:
            raise NoServiceError(f"the liveness service did not answer within {seconds:g} s") from error

    async def ensure_stream(
        self, stream: str, subjects: Sequence[str], max_age: float, max_bytes: int
    ) -> Sequence[str]:
        """Create the events' stream if it is missing, and check it if it is there; return what is doubtful about it.

        `max_age` in seconds. Subjects that a stream of this name lacks are added to it. Raises CannotStartError, in one
        line with the way out, for a NATS without JetStream and for another stream on the same subjects.
        """
        deadline = asyncio.get_running_loop().time() + JETSTREAM_START_SECONDS
        while True:
            try:
                return await self._ensure_stream(stream, subjects, max_age, max_bytes)
            except js_errors.APIError as error:
                if error.err_code == _SUBJECTS_OVERLAP:
                    other = await self._stream_on(subjects)
                    raise CannotStartError(
                        f"the JetStream stream {other} already takes some of {', '.join(subjects)}: set events_stream "
                        f"to {other} if it may hold these events, or set event_prefix"
                    ) from error
                cause: Exception = error
                final = error.err_code in _JETSTREAM_NOT_ENABLED
            except (nats_errors.Error, OSError, TimeoutError) as error:
                cause, final = error, False
            if final or asyncio.get_running_loop().time() > deadline:
                raise CannotStartError(
                    f"NATS at {shown(self._servers)} has no JetStream, which the events need: start nats-server "
                    f"with -js ({cause})"
                ) from cause
            await asyncio.sleep(BACKOFF_LEAST)

    async def publish_events(self, stream: str, events: Sequence[Event]) -> tuple[list[int], str | None]:
        """Publish events to `stream`; return the positions of those that it acknowledged, and a complaint or None."""
        context = self._jetstream
        if context is None or not self.connected:
            return [], "not connected to NATS"
        waiting: list[asyncio.Future[js_api.PubAck]] = []
        complaint = None
        try:
            for event in events:
                # Expected-Stream: a host's stream on the same subjects must not acknowledge in our stream's place.
                headers = {"Nats-Msg-Id": event.id, "Content-Type": "application/cloudevents+json"}
                waiting.append(
                    await context.publish_async(event.subject, event.payload, stream=stream, headers=headers)
                )
        except (nats_errors.Error, js_errors.Error, OSError) as error:
            complaint = str(error)
        if waiting:
            await asyncio.wait(waiting, timeout=ACK_SECONDS)
        acknowledged = []
        for position, future in enumerate(waiting):
            if not future.done():
                future.cancel()
                complaint = complaint or f"no acknowledgement within {ACK_SECONDS:g} s"
            elif (refusal := future.exception()) is not None:
                complaint = complaint or str(refusal)
            else:
                acknowledged.append(position)
        return acknowledged, complaint

    async def close(self) -> None:
        """End the connection, with what was published sent if that is possible at once."""
        self._up.clear()
        if self._link is not None:
            with contextlib.suppress(ConnectionError):
                # nats-py writes on the next turn of the loop.
                await asyncio.sleep(0)
                await self._link.answer(1)
        await self._discard()

    async def _open(self) -> None:
        self._refusal = None
        self._link = link = Link(self._refused)
        try:
            await self._set_up(link)
        except BaseException:
            self._fault = link.fault
            await self._discard()
            raise
        self._up.set()
        self.on_up()

    async def _set_up(self, link: Link) -> None:
        await link.open(self._servers, self._name, self._inbox_prefix)
        # One for the life of the link: each subscribes an inbox for its acknowledgements and keeps it.
        self._jetstream = link.jetstream()
        link.on_drop = self._dropped
        for subject, sink in self._sinks:
            await link.subscribe(subject, cb=_delivering(sink))
        await _echo(link)
        if self._refusal is not None:
            # Connected and deaf would look like a world in which everybody has died.
            raise CannotStartError(f"NATS at {shown(self._servers)} refuses us: {self._refusal}")

    async def _watch(self) -> str:
        link = self._link
        while link is not None and not link.lost.done():
            try:
                await link.answer(ANSWER_SECONDS)
            except ConnectionError as error:
                return str(error)
            await asyncio.wait({link.lost}, timeout=CHECK_SECONDS)
        return str((link is not None and link.fault) or "closed")

    async def _discard(self) -> None:
        link, self._link, self._jetstream = self._link, None, None
        if link is not None:
            await link.drop()

    def _refused(self, text: str) -> None:
        self._refusal = text
        if self.connected:
            log.warning("nats_refuses", text=text)

    def _dropped(self) -> None:
        self.faults["dropped"] = self.faults.get("dropped", 0) + 1
        self.on_drop()

    async def _stream_on(self, subjects: Sequence[str]) -> str:
        context = self._jetstream
        if context is None:
            return "(name unknown)"
        for subject in subjects:
            with contextlib.suppress(nats_errors.Error, js_errors.Error, OSError, TimeoutError):
                return str(await context.find_stream_name_by_subject(subject))
        return "(name unknown)"

    async def _ensure_stream(
        self, stream: str, subjects: Sequence[str], max_age: float, max_bytes: int
    ) -> Sequence[str]:
        context = self._jetstream
        if context is None:
            raise nats_errors.ConnectionClosedError
        try:
            config = (await context.stream_info(stream)).config
        except js_errors.NotFoundError:
            await context.add_stream(
                js_api.StreamConfig(
                    name=stream,
                    subjects=list(subjects),
                    max_age=max_age,
                    max_bytes=max_bytes,
                    duplicate_window=min(DUPLICATE_WINDOW_SECONDS, max_age),
                )
            )
            return []
        doubts = []
        present = list(config.subjects or [])
        missing = [subject for subject in subjects if not any(_covers(pattern, subject) for pattern in present)]
        if missing:
            config.subjects = present + missing
            await context.update_stream(config)
            doubts.append(f"the stream {stream} did not take {', '.join(missing)}: added")
        if config.retention not in {None, js_api.RetentionPolicy.LIMITS}:
            doubts.append(f"the stream {stream} drops events once they are read: subscribers take them from each other")
        if config.no_ack:
            doubts.append(f"the stream {stream} does not acknowledge: events may be lost")
        if config.max_age and config.max_age < max_age:
            doubts.append(f"the stream {stream} keeps events {config.max_age:g} s, events_max_age says {max_age:g}")
        return doubts


async def _echo(link: Link) -> None:
    """Return when the server has taken, or refused, every subscription made so far.

    `flush()` would not do: nats-py writes its PING ahead of commands that still wait to be sent, so that the answer may
    come before the server has seen them. A message to ourselves comes behind them.
    """
    inbox = link.new_inbox()
    subscription = await link.subscribe(inbox)
    await link.publish(inbox)
    await subscription.next_msg(timeout=ANSWER_SECONDS)
    await subscription.unsubscribe()


def _covers(pattern: str, subject: str) -> bool:
    parts, tokens = pattern.split("."), subject.split(".")
    for position, part in enumerate(parts):
        if part == ">":
            return position < len(tokens)
        if position >= len(tokens) or part not in {"*", tokens[position]}:
            return False
    return len(parts) == len(tokens)


def _delivering(sink: Sink) -> Callable[[Msg], Awaitable[None]]:
    async def deliver(message: Msg) -> None:
        try:
            sink(message.subject, message.data, message.reply)
        except Exception:
            # A fault of ours. It must not cost the beats that come behind this message.
            log.exception("sink_failed", subject=message.subject)

    return deliver
