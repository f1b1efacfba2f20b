"""The bus: one link to NATS at a time, and the next one whenever it is lost, for ever.

There is one way down and one way up. Both are told to whoever listens (`on_down`, `on_up`), because silence only counts
while we can hear; a new link subscribes anew, and is up only when the server has proven that it took the subscriptions.
On the service's side only this file, `link` and `eventstream` import nats.

`faults` counts what went wrong since the start. Of each link that was lost, one of: `lost` (it ended), `half_open` (the
server takes or gives nothing any more), `refused` (the server closed it, and said so), `malformed` (what came is no
NATS), `deaf` (it stood, and whoever listens was sure to hear nothing: `give_up`). Of a link that stands: `sink_raised`,
`callback_raised`, `forbidden` (something that we sent or asked for was not let through), `dropped` (an acknowledgement
of JetStream's, never a message for a sink: a server that cannot get rid of those ends the connection).
"""

import asyncio
import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from nats.errors import SlowConsumerError
from nats.js import JetStreamContext

from liveness.access import ANYBODY, Access
from liveness.addresses import servers_of, shown
from liveness.bounded import cancellations
from liveness.errors import CannotStartError, ForbiddenError, NatsRefusedError, NoServiceError, SettingsError
from liveness.eventstream import EventStream
from liveness.findings import Finding
from liveness.limits import NatsLimits
from liveness.link import Link, RawSink, RunSink
from liveness.publishing import Event, Publisher
from liveness.wire import NO_RESPONDERS, status_of

log = structlog.get_logger("liveness.bus")

# A round trip to the server is asked for this often, and the connection given up when it takes this long.
CHECK_SECONDS = 1.0
ANSWER_SECONDS = 2
# As long as it sends us other things, the answer may wait behind those for this long.
BUSY_SECONDS = 20
# The first wait between two attempts to connect, and the longest: after an outage the dead wait for it, too.
BACKOFF_LEAST, BACKOFF_MOST = 0.1, 0.5
# For a server that was there and let us in no more: each attempt is a line in its log.
REFUSED_SECONDS = 2.0
# A link that did not last so long is another failure; the next one is made after a wait.
LASTING_SECONDS = 5.0
# A fault that comes with every message must not cost a line of the log for every message.
COMPLAINT_SECONDS = 1.0
NOBODY = "no liveness service answers on this NATS: is `liveness serve` running, and past its start?"
# Behind the prefix of the inboxes, where answers to commands come.
COMMANDS = "command"
# The quickest of so many says how far away a server is.
ROUND_TRIPS = 5

Sink = Callable[[str, bytes, str], None]


class Bus:
    """One connection to NATS at a time, for ever, with the subscriptions that were asked for."""

    def __init__(
        self,
        url: str,
        name: str = "liveness",
        access: Access = ANYBODY,
        least_server: tuple[int, ...] = (),
    ) -> None:
        """`url`: one server, or several separated by commas. A server older than `least_server` will not do.

        Raises SettingsError for what is no address, and for an `access` that cannot be used.
        """
        try:
            self._servers = servers_of(url)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self._name = name
        access.check(url)
        self._access = access
        self._least_server = least_server
        self._optional: set[str] = set()
        self._sinks: list[tuple[str, Sink, RunSink | None]] = []
        self._link: Link | None = None
        self._jetstream: JetStreamContext | None = None
        self._publisher: Publisher | None = None
        self._up = asyncio.Event()
        self._refusal: str | None = None
        self._fault: Exception | None = None
        self._given_up: str | None = None
        # What is asked now, by the subjects that the server would forbid: of the question, and of its answer.
        self._questions: dict[str, asyncio.Future[bytes | None]] = {}
        self._complained_at: dict[str, float] = {}
        self.faults: Counter[str] = Counter()
        self.on_up: Callable[[], None] = lambda: None
        self.on_down: Callable[[], None] = lambda: None
        # Messages for a sink may have been dropped on a link that stands. Nothing in this file drops any.
        self.on_drop: Callable[[], None] = lambda: None

    @property
    def connected(self) -> bool:
        """Whether the subscriptions stand."""
        return self._up.is_set()

    @property
    def lets_anybody_in(self) -> bool:
        """Whether the server that we are connected to asks nobody who it is."""
        return self._link is not None and self._link.lets_anybody_in

    def subscribe(self, subject: str, sink: Sink, run: RunSink | None = None, *, optional: bool = False) -> None:
        """Give every message on `subject` to `sink(subject, payload, reply)`, on this and all later connections.

        To be called before `connect`. The sink is synchronous, and gets the messages in the order in which they came,
        across all sinks; what it raises is logged and counted, and the next message is delivered all the same. Bytes of
        subject and reply that are no UTF-8 come as U+FFFD. `run` is the short way of one of them (see `Link.listen`).
        An `optional` one that the server refuses is complained of, and done without.
        """
        if optional:
            self._optional.add(subject)
        self._sinks.append((subject, sink, run))

    async def connect(self, on_wait: Callable[[str], None] = lambda _: None) -> None:
        """Wait, with back-off, for the first connection.

        `on_wait` is told the cause, once per cause. Raises CannotStartError when NATS refuses us.
        """
        told: set[str] = set()
        wait = BACKOFF_LEAST
        heed = cancellations()
        while True:
            try:
                return await self._open()
            except CannotStartError:
                heed()
                raise
            except Exception as error:
                # What it was cancelled in may have swallowed that.
                heed()
                fault = self._fault or error
                if isinstance(error, NatsRefusedError):
                    raise CannotStartError(f"NATS at {shown(self._servers)} {error}") from error
                cause = str(fault) or type(fault).__name__
                if cause not in told:
                    told.add(cause)
                    on_wait(cause)
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing
                wait = min(wait * 2, BACKOFF_MOST)

    async def keep(self) -> None:
        """Watch the connection, and make the next one whenever it fails, for ever."""
        loop = asyncio.get_running_loop()
        wait = BACKOFF_LEAST
        while True:
            since = loop.time()
            kind, cause = await self._watch()
            self._up.clear()
            self.faults[kind] += 1
            log.warning("nats_lost", kind=kind, cause=cause)
            self._tell(self.on_down)
            await self._discard()
            wait = min(wait * 2, BACKOFF_MOST) if loop.time() - since < LASTING_SECONDS else BACKOFF_LEAST
            # Jitter: all who were on a server that is gone must not come to the next one at once.
            await asyncio.sleep(wait * random.random())  # noqa: S311 - spreads load, guards nothing
            await self.connect_again()
            log.info("nats_back")

    async def connect_again(self) -> None:
        """Wait for a connection, whatever stands against it: who was let in once may be let in again."""
        told: set[str] = set()
        while True:
            try:
                return await self.connect()
            except CannotStartError as error:
                if (cause := str(error)) not in told:
                    told.add(cause)
                    log.warning("nats_refuses", cause=cause)
            await asyncio.sleep(REFUSED_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load, guards nothing

    def give_up(self, cause: str) -> None:
        """Make `keep` drop the link that stands and make the next one: for who is sure to hear nothing on this one.

        A server may have lost our subscription and answer all the same; only whoever listens can know.
        """
        if self._link is not None and self.connected:
            self._given_up = cause
            self._link.cut()

    def send(self, subject: str, payload: bytes) -> bool:
        """Publish without waiting, at most once.

        False when there is no connection, when too much waits to be sent on it, and when the server would not take it.
        """
        return self._link is not None and self.connected and self._link.send(subject, payload)

    async def publish(self, subject: str, payload: bytes) -> bool:
        """Publish as `send` does, after a turn of the loop if too much waits to be sent."""
        if self.send(subject, payload):
            return True
        await asyncio.sleep(0)
        return self.send(subject, payload)

    def answer(self, reply: str, payload: bytes) -> bool:
        """Publish an answer as `send` does, but only to an inbox (its first token begins with `_`).

        Who asks chooses where we answer. `$JS.API.STREAM.DELETE.x` would do what we may and they may not, and
        `<prefix>.heartbeat.x` would be a beat.
        """
        return reply.startswith("_") and self.send(reply, payload)

    def ask(self, subject: str, payload: bytes, on_answer: Callable[[bytes | None], None], seconds: float) -> bool:
        """Publish a request without waiting; False as `send`, or when too many are outstanding.

        `on_answer` is called once, with the answer or with None when nobody listens there ("no responders", which
        proves nothing about the worker). After `seconds` without either, or once the connection is lost, the question
        is forgotten without a call.
        """
        return self._link is not None and self.connected and self._link.ask(subject, payload, on_answer, seconds)

    async def request(self, subject: str, payload: bytes, seconds: float) -> bytes:
        """Return the answer to a command's question, which keeps an inbox for the life of the link.

        Raises NoServiceError when there is none within `seconds`, and at once where nobody listens; ForbiddenError.
        """
        link = self._link
        if link is None:
            raise NoServiceError("not connected to NATS")
        question: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        # Below a word of its own: so that a service may answer commands under its own login (`kubectl exec`), and
        # nobody can have it answer into its other inboxes.
        inbox = f"{self._access.inbox_prefix}.{COMMANDS}.{secrets.token_hex(11)}"

        def take(_subject: bytes, _reply: bytes, headers: bytes, answer: bytes) -> None:
            if not question.done():
                nobody = not answer and status_of(headers) == NO_RESPONDERS
                question.set_result(None if nobody else answer)

        self._questions |= {subject: question, inbox: question}
        try:
            link.listen(inbox, take)
            if not link.send(subject, payload, inbox):
                raise NoServiceError("NATS did not take the question: too large, or no connection")
            either: set[asyncio.Future[Any]] = {question, link.lost}
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (subject, inbox):
                self._questions.pop(one, None)
        if question.done():
            if (answer := question.result()) is None:
                raise NoServiceError(NOBODY)
            return answer
        if link.lost.done():
            raise NoServiceError(f"the connection to NATS was lost: {link.fault or 'closed'}")
        raise NoServiceError(
            f"the liveness service did not answer within {seconds:g} s: perhaps nobody leads; /readyz of each replica "
            "says why"
        )

    async def ensure_stream(
        self, stream: str, subjects: Sequence[str], max_age: float, max_bytes: int
    ) -> list[Finding]:
        """Do what `EventStream.ensure` does, and raise likewise; `max_age` in seconds."""
        ensure = EventStream(stream, subjects, max_age, max_bytes).ensure
        return await ensure(lambda: self._jetstream, shown(self._servers), alone=self._without_jetstream)

    async def look_at_stream(
        self, stream: str, subjects: Sequence[str], max_age: float, max_bytes: int
    ) -> list[Finding]:
        """Return what is doubtful about the events' stream, and change nothing. Raises as `ensure_stream` does."""
        wanted = EventStream(stream, subjects, max_age, max_bytes)
        return await wanted.look(lambda: self._jetstream, shown(self._servers), alone=self._without_jetstream)

    def _without_jetstream(self) -> bool:
        return self._link is not None and self._link.without_jetstream

    async def read_limits(self) -> NatsLimits:
        """Return what the server that we are connected to says of itself. Raises ConnectionError when it is gone."""
        link = self._link
        if link is None:
            raise ConnectionError("not connected to NATS")
        version = link.connected_server_version
        trips = []
        for _ in range(ROUND_TRIPS):
            began = time.monotonic()
            await link.answer(ANSWER_SECONDS)
            trips.append(time.monotonic() - began)
        return NatsLimits(version=(version.major, version.minor), max_payload=link.max_payload, round_trip=min(trips))

    async def publish_events(self, stream: str, events: Sequence[Event]) -> tuple[list[int], str | None]:
        """Publish events to `stream`; return the positions of those that it acknowledged, and a complaint or None."""
        if self._publisher is None or not self.connected:
            return [], "not connected to NATS"
        return await self._publisher.publish(stream, events)

    async def close(self) -> None:
        """End the connection, with what was published sent if that is possible at once."""
        self._up.clear()
        if self._link is not None:
            with contextlib.suppress(ConnectionError):
                await self._link.answer(1)
        await self._discard()

    async def _open(self) -> None:
        self._refusal = self._given_up = None
        self._link = link = Link(self._refused)
        try:
            await self._set_up(link)
        except BaseException:
            self._fault = link.fault
            await self._discard()
            raise
        self._up.set()
        self._tell(self.on_up)

    async def _set_up(self, link: Link) -> None:
        link.on_raise = self._raised
        await link.open(self._servers, self._name, self._access.inbox_prefix, self._access)
        version = link.connected_server_version
        if (version.major, version.minor) < self._least_server:
            least = ".".join(map(str, self._least_server))
            raise CannotStartError(
                f"NATS at {shown(self._servers)} is older than {least}: it cannot divide heartbeats into shards"
            )
        # One for the life of the link: each subscribes an inbox for its acknowledgements and keeps it.
        self._jetstream = link.jetstream()
        for subject, sink, run in self._sinks:
            link.listen(subject, _decoding(sink), run)
        link.accept_answers()
        self._publisher = Publisher(link)
        # What the server has to say against a subscription, it says before it answers this.
        await link.answer(ANSWER_SECONDS, BUSY_SECONDS)
        if self._refusal is not None:
            # Connected and deaf would look like a world in which everybody has died.
            raise CannotStartError(f"NATS at {shown(self._servers)} refuses us: {self._refusal}")

    async def _watch(self) -> tuple[str, str]:
        """Return, once the link is lost, which way and why."""
        link = self._link
        while link is not None and not link.lost.done():
            try:
                await link.answer(ANSWER_SECONDS, BUSY_SECONDS)
            except ConnectionError as error:
                if not link.lost.done():
                    return "half_open", str(error)
                break
            await asyncio.wait({link.lost}, timeout=CHECK_SECONDS)
        if self._given_up is not None:
            return "deaf", self._given_up
        return (link and link.ending) or "lost", str((link and link.fault) or "closed")

    async def _discard(self) -> None:
        link, self._link, self._jetstream, self._publisher = self._link, None, None, None
        if link is not None:
            await link.drop()

    def _tell(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:  # noqa: BLE001 - whoever listens must not keep the next connection from being made
            self._complain("callback_raised", error=error)

    def _refused(self, text: str) -> None:
        for subject, question in self._questions.items():
            if f'"{subject}"'.lower() in text.lower():
                if not question.done():
                    question.set_exception(ForbiddenError(self._forbids(subject)))
                return
        if self.connected or any(f'"{subject}"'.lower() in text.lower() for subject in self._optional):
            # Maybe a stranger wanted an answer there, or it is done without. The link is as good as it was.
            self._complain("forbidden", text=text)
        else:
            self._refusal = text

    def _forbids(self, subject: str) -> str:
        who = f"the user {self._access.user!r}" if self._access.user else "this login"
        return (
            f"NATS forbids {who} {subject}, so the service cannot be asked: log in as one who may, as `operator` in "
            "deploy/nats/liveness.conf"
        )

    def _raised(self, error: Exception) -> None:
        dropped = isinstance(error, SlowConsumerError)
        self._complain("dropped" if dropped else "sink_raised", error=error)

    def _complain(self, kind: str, *, error: Exception | None = None, text: str = "") -> None:
        self.faults[kind] += 1
        now = asyncio.get_running_loop().time()
        if now - self._complained_at.get(kind, -COMPLAINT_SECONDS) >= COMPLAINT_SECONDS:
            self._complained_at[kind] = now
            log.error("bus_fault", kind=kind, text=text, count=self.faults[kind], exc_info=error)


def _decoding(sink: Sink) -> RawSink:
    def take(subject: bytes, reply: bytes, _headers: bytes, payload: bytes) -> None:
        sink(str(subject, "utf-8", "replace"), payload, str(reply, "utf-8", "replace"))

    return take
