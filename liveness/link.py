"""One connection to NATS, from its making to its loss; a lost one is never used again. For both sides.

nats-py connects, authenticates and does JetStream. Its own reconnecting is turned off, because it keeps what was
published meanwhile and delivers it late, because an unexpected exception ends its reading unnoticed, and because a
half-open connection with unsent output never comes back. Its parser is replaced (see `wire`). Its queues and tasks are
passed by for whatever is listened to with a sink: each message goes to its sink in the order in which it came off the
socket, across all sinks of the link, so that a beat and the goodbye behind it keep their order.
"""

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec
from nats.aio.subscription import Subscription
from nats.errors import ProtocolError, SlowConsumerError, UnexpectedEOF
from nats.protocol.parser import Parser

from liveness.access import ANYBODY, Access
from liveness.bounded import finish_within
from liveness.login import Login
from liveness.messages import SHORT
from liveness.wire import NO_RESPONDERS, FramingError, Incoming, headers_of, run_of, status_of

# For each step of connecting (TCP, greeting, answer): a server that takes longer is as good as away.
STEP_SECONDS: Final = 2
# Unravelling a connection that was cut needs no network, so a second is a stall of this process.
DROP_SECONDS: Final = 1.0
# nats-py's own check of the connection; our round trips find a dead one sooner.
_IDLE_CHECK_SECONDS: Final = 60
# More that the server has not taken yet is a server that takes nothing.
MOST_UNSENT_BYTES: Final = 1 << 20
# Of one read, as a run of heartbeats is taken without a pause: 1 ms of usual ones, 40 ms of the dearest of a stranger.
READ_BYTES: Final = 1 << 16
# How long messages are taken without letting anybody else have a turn, and after how many the clock is looked at.
TURN_SECONDS: Final = 0.005
_LOOK_EVERY: Final = 64
MOST_ASKED: Final = 10_000
# The server ends a connection whose command line is longer than its max_control_line (4 KiB unless set).
MOST_HEAD_BYTES: Final = 1024
# What parts words for the server or deceives a terminal, and what stands where bytes were no UTF-8 (nobody is there).
_UNFIT: Final = re.compile(r"[\x00-\x20\x7f\ufffd]")

RawSink = Callable[[bytes, bytes, bytes, bytes], None]
RunSink = Callable[[Iterator[re.Match[bytes]]], int]


class _Info(msgspec.Struct):
    max_payload: int = 0


class Link(Login):
    """nats-py's client for one connection. `lost` is done as soon as nothing more can be heard on it."""

    def __init__(self, on_refusal: Callable[[str], None]) -> None:
        super().__init__()
        self._loop: Final = asyncio.get_running_loop()
        self.lost: Final[asyncio.Future[None]] = self._loop.create_future()
        # When bytes last came. Not by the loop's clock: uvloop's goes in milliseconds.
        self.heard_at = time.monotonic()
        # Which way the link was lost, in a word, if it is known to be another than that the connection ended.
        self.ending: str | None = None
        self._fault: Exception | None = None
        self._on_refusal = on_refusal
        self._sinks: dict[bytes, RawSink] = {}
        self._asked: dict[bytes, tuple[Callable[[bytes | None], None], asyncio.TimerHandle]] = {}
        self._inbox = ""
        self._ps = self._reading = _Reading(self)
        # Called with what a sink raised, and with SlowConsumerError when nats-py dropped a message of its own queues.
        self.on_raise: Callable[[Exception], None] = lambda _: None

    async def open(self, servers: Sequence[str], name: str, inbox_prefix: str, access: Access = ANYBODY) -> None:
        """Connect to one of `servers`; raises what `log_in` raises, within a few seconds."""
        async with asyncio.timeout(STEP_SECONDS * (len(servers) + 2)):
            await self.log_in(
                servers,
                access,
                name=name,
                inbox_prefix=inbox_prefix,
                allow_reconnect=False,
                # Less than 1 would mean for ever.
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=STEP_SECONDS,
                ping_interval=_IDLE_CHECK_SECONDS,
                # Nothing is kept for later.
                pending_size=0,
                error_cb=self._on_error,
            )
        if self._flusher_task is not None:
            # Without it a link still hears, and says nothing.
            self._flusher_task.add_done_callback(lambda _: self._mark_lost())

    @property
    def server_id(self) -> str | None:
        """The id of the NATS server at the other end."""
        server_id = self._server_info.get("server_id")
        return server_id if isinstance(server_id, str) else None

    @property
    def fault(self) -> Exception | None:
        """What went wrong last on this connection."""
        return self._fault or self.last_error

    @property
    def unsent(self) -> int:
        """How many bytes the operating system has not taken yet."""
        # See `cut` for what is closed.
        with contextlib.suppress(AttributeError):
            return self._pending_data_size + (0 if (way := self.transport) is None else way.get_write_buffer_size())
        return self._pending_data_size

    @property
    def transport(self) -> asyncio.WriteTransport | None:
        """What the bytes go out by, once connected."""
        return None if self._writer is None else self._writer.transport

    def listen(self, subject: str, sink: RawSink, run: RunSink | None = None) -> None:
        """Subscribe; give each message to `sink(subject, reply, headers, payload)` as it comes off the socket.

        What the sink raises goes to `on_raise`, and the next message is delivered all the same. `run`, of one
        subscription to `<prefix>.>` at most, may take as many as it can of those that come next, and returns where the
        last one ends, or 0; the sink gets what it leaves, and once it has raised, everything.
        """
        self._sid += 1
        if run is not None:
            self._reading.take_runs(run_of(subject, self._sid, SHORT), run)
        self._sinks[str(self._sid).encode()] = sink
        self._write(f"SUB {subject} {self._sid}\r\n".encode())

    def send(self, subject: str, payload: bytes, reply: str = "", headers: bytes = b"") -> bool:
        """Publish without waiting, at most once. `headers` as they are sent, from `NATS/1.0` to the empty line.

        False when the link is lost, `MOST_UNSENT_BYTES` wait to be sent, or the server would end the connection for it.
        """
        size = len(headers) + len(payload)
        if self.lost.done() or not self.is_connected or size > self._max_payload:
            return False
        if not subject or _UNFIT.search(subject) or _UNFIT.search(reply):
            return False
        try:
            words = f"HPUB {subject} {reply} {len(headers)}" if headers else f"PUB {subject} {reply}"
            head = f"{words} {size}\r\n".encode()
        except UnicodeEncodeError:
            # A lone surrogate.
            return False
        if len(head) > MOST_HEAD_BYTES or self.unsent + size > MOST_UNSENT_BYTES:
            return False
        self._write(b"%b%b%b\r\n" % (head, headers, payload))
        return True

    def accept_answers(self) -> None:
        """Subscribe the inbox of `ask`; once, before the first."""
        self._inbox = self.new_inbox()
        self.listen(f"{self._inbox}.*", self._answered)

    def ask(self, subject: str, payload: bytes, on_answer: Callable[[bytes | None], None], seconds: float) -> bool:
        """Publish a request without waiting; False when that cannot be done, or `MOST_ASKED` are outstanding.

        `on_answer` is called once with the answer, or with None when nobody listens there. After `seconds` without
        either, or once the link is lost, the question is forgotten without a call.
        """
        if not self._inbox or len(self._asked) >= MOST_ASKED:
            return False
        # Not to be guessed: who was asked knows the inbox, and must not be able to answer for another.
        token = secrets.token_hex(10)
        if not self.send(subject, payload, f"{self._inbox}.{token}"):
            return False
        key = token.encode()
        self._asked[key] = (on_answer, self._loop.call_later(seconds, self._asked.pop, key, None))
        return True

    async def deliver(self, subject: str, payload: bytes, seconds: float) -> None:
        """Publish, and wait until the server has taken it; raises ConnectionError when it does not in `seconds`."""
        await self.publish(subject, payload)
        await self.answer(seconds)

    async def answer(self, seconds: float, busy_seconds: float = 0.0) -> None:
        """Wait until the server has taken all that was sent before; raises ConnectionError when it does not answer.

        It has `seconds`, and up to `busy_seconds` as long as other things come from it, which its answer stands behind.
        """
        answered: asyncio.Future[None] = self._loop.create_future()
        # Not flush(): it reports success when the reading has ended already.
        asked_at, wait = time.monotonic(), seconds
        await self._send_ping(answered)
        while wait > 0 and not answered.done() and not self.lost.done():
            await asyncio.wait({answered, self.lost}, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            now = time.monotonic()
            wait = min(self.heard_at + seconds, asked_at + busy_seconds) - now
        if not answered.done():
            cause = self.fault or "closed" if self.lost.done() else f"no answer within {seconds:g} s"
            raise ConnectionError(str(cause))

    async def hush(self, subscription: Subscription, seconds: float) -> None:
        """Unsubscribe, and return once all that the server had sent until then was given to the callback.

        Raises ConnectionError when the server does not answer within `seconds`.
        """
        await self._send_unsubscribe(subscription._id)  # noqa: SLF001 - unsubscribe() throws away what arrives meanwhile
        await self.answer(seconds)
        while subscription.pending_msgs:  # noqa: ASYNC110 - nobody tells when a queue of nats-py is empty
            await asyncio.sleep(0)

    def cut(self) -> None:
        """End the connection without waiting; what was not sent yet is not sent any more."""
        self._mark_lost()
        self._pending.clear()
        self._pending_data_size = 0
        if self.transport is not None:
            # Over TLS, what is closed already has nothing to abort any more, and some Pythons raise this then.
            with contextlib.suppress(AttributeError):
                self.transport.abort()

    async def drop(self) -> None:
        """Cut the connection and clear up behind it, within about a second."""
        # Before close(): that waits for a peer which may be gone to take what is still unsent.
        self.cut()
        await finish_within(DROP_SECONDS, self.close())
        # Where nats-py had begun to close by itself and failed at that, its subscriptions' tasks still wait.
        for subscription in list(self._subs.values()):
            subscription._stop_processing()  # noqa: SLF001 - unsubscribe() refuses to on a closed client

    async def take(self, sid: bytes, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        """Take a message of one of nats-py's own subscriptions, or a word of the server."""
        if sid:
            # nats-py raises for what does not decode.
            subject, reply = (text.decode(errors="replace").encode() for text in (subject, reply))
            await self._process_msg(int(sid), subject, reply, payload, headers)
        elif subject == b"PING":
            await self._process_ping()
        elif subject == b"PONG":
            await self._process_pong()
        elif subject == b"-ERR":
            await self._process_err(payload.decode(errors="replace").lower())
        elif subject == b"INFO":
            # The other servers that it names are for a client that reconnects by itself.
            try:
                self._max_payload = msgspec.json.decode(payload, type=_Info).max_payload or self._max_payload
            except msgspec.DecodeError as error:
                raise FramingError("an INFO that is none") from error

    async def _read_loop(self) -> None:
        # All ways to lose a connection lead through here: nats-py ends or cancels its reading first of all. Its loop
        # reads 32 KiB at a time, which costs a heartbeat a fifth more, and ends in silence where it does not expect it.
        try:
            while not self.is_closed and self._transport is not None and not self._transport.at_eof():
                await self._ps.parse(await self._transport.read(READ_BYTES))
            if not self.is_closed:
                await self._process_op_err(UnexpectedEOF())
        except asyncio.CancelledError:
            # Whoever closes waits for us to end, and not for what he has cancelled.
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing more is heard
            self._fault = self._fault or error
            await self._process_op_err(error)
        finally:
            self._mark_lost()

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        # nats-py writes its PING ahead of what still waits to be sent, so that the answer proves nothing about that.
        self._pongs.append(future or self._loop.create_future())
        self._write(b"PING\r\n")

    async def _process_pong(self) -> None:
        self._pings_outstanding = 0
        # Nobody may wait for it any more.
        if self._pongs and not (future := self._pongs.pop(0)).done():
            future.set_result(True)

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        # nats-py's own raises for headers of eight bytes, and for a first line that is no text.
        return headers_of(headers) if headers else None

    async def _process_err(self, err_msg: str) -> None:
        await super()._process_err(err_msg)
        # After every other error nats-py closes, in a task of its own that a half-open connection holds up for ever.
        if "permissions violation" not in err_msg:
            self.ending = self.ending or "refused"
            self._mark_lost()

    async def _process_op_err(self, e: Exception) -> None:
        self._mark_lost()
        await super()._process_op_err(e)

    async def _on_error(self, error: Exception) -> None:
        self._fault = error
        # These two leave the connection as it is.
        if isinstance(error, SlowConsumerError):
            self.on_raise(error)
        elif "permissions violation" in str(error).lower():
            self._on_refusal(str(error))

    def _write(self, command: bytes) -> None:
        """Have nats-py's writer write `command` behind all that waits already."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        # One wake-up is enough; it takes all there is.
        if self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(self._loop.create_future())

    def _answered(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        # A worker's name in it may have more bytes than characters.
        asked = self._asked.pop(subject[len(self._inbox.encode()) + 1 :], None)
        if asked is not None:
            on_answer, forgetting = asked
            forgetting.cancel()
            on_answer(None if not payload and status_of(headers) == NO_RESPONDERS else payload)

    def _mark_lost(self) -> None:
        for _, forgetting in self._asked.values():
            forgetting.cancel()
        self._asked.clear()
        if not self.lost.done():
            self.lost.set_result(None)


class _Reading(Parser):
    """Stands in the place of nats-py's parser: its reading gives us what it has read, and we give out the messages."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._link = link
        self._incoming = Incoming()
        self._turn_since = 0.0

    async def parse(self, data: bytes = b"") -> None:
        """Deliver the messages that are complete once `data` has come; raises ProtocolError for what is no NATS."""
        link = self._link
        sinks = link._sinks  # noqa: SLF001 - one class in two parts
        link.heard_at = time.monotonic()
        until_look = _LOOK_EVERY
        try:
            for sid, subject, reply, headers, payload in self._incoming.read(data):
                try:
                    if (sink := sinks.get(sid)) is not None:
                        sink(subject, reply, headers, payload)
                    else:
                        await link.take(sid, subject, reply, headers, payload)
                except FramingError:
                    raise
                except Exception as error:  # noqa: BLE001 - it would end the reading, and cost all that comes behind
                    link.on_raise(error)
                until_look -= 1
                if not until_look:
                    until_look = _LOOK_EVERY
                    await self._give_way()
                    if link.lost.done():
                        return
        except FramingError as error:
            link.ending = "malformed"
            link._fault = error  # noqa: SLF001
            raise ProtocolError from error
        # Reading what is buffered already gives nobody else a turn.
        await self._give_way()

    def take_runs(self, pattern: re.Pattern[bytes], run: RunSink) -> None:
        """Have messages that `pattern` matches taken by `run`."""

        def take(data: bytes, at: int) -> int:
            try:
                return run(iter(pattern.scanner(data, at).match, None)) or at  # type: ignore[attr-defined]
            except Exception as error:  # noqa: BLE001 - the sinks may do better, and one after the other
                self._incoming.run = None
                self._link.on_raise(error)
                return at

        self._incoming.run = take

    async def _give_way(self) -> None:
        if time.monotonic() - self._turn_since > TURN_SECONDS:
            await asyncio.sleep(0)
            self._turn_since = time.monotonic()
