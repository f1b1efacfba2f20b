"""One connection to NATS, from its making to its loss; a lost one is never used again. For both sides.

nats-py's own reconnecting is turned off, because it keeps what was published meanwhile and delivers it late, because an
unexpected exception ends its reading unnoticed, and because a half-open connection with unsent output never comes back.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import SlowConsumerError

# For each step of connecting (TCP, greeting, answer): a server that takes longer is as good as away.
STEP_SECONDS: Final = 2
# Unravelling a connection that was cut needs no network, so a second is a stall of this process.
DROP_SECONDS: Final = 1.0
# For what was cancelled to notice it.
CANCEL_SECONDS: Final = 0.2
# nats-py's own check of the connection; our round trips find a dead one sooner.
_IDLE_CHECK_SECONDS: Final = 60
_SCHEMES: Final = ("nats", "tls", "ws", "wss")


def servers_of(nats_url: str) -> list[str]:
    """Return the servers that `nats_url` names, separated by commas; raises ValueError for what cannot be one."""
    servers = [part.strip() for part in nats_url.split(",") if part.strip()]
    if not servers:
        raise ValueError("nats_url is empty: give it as in nats://127.0.0.1:4222")
    for server in servers:
        try:
            parts = urlsplit(server if "://" in server else f"nats://{server}")
            usable = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(
                f"nats_url names {shown([server])!r}, which is no server: give it as in nats://127.0.0.1:4222"
            )
    return servers


def shown(servers: Sequence[str]) -> str:
    """Return `servers` without user and password."""
    return ", ".join(server.rpartition("@")[2].rpartition("//")[2] for server in servers)


class Link(Client):
    """nats-py's client for one connection. `lost` is done as soon as nothing more can be heard on it."""

    def __init__(self, on_refusal: Callable[[str], None]) -> None:
        super().__init__()
        self.lost: Final[asyncio.Future[None]] = asyncio.get_running_loop().create_future()
        self._fault: Exception | None = None
        self._on_refusal = on_refusal
        # Called when a message was dropped because too many waited.
        self.on_drop: Callable[[], None] = lambda: None

    async def open(self, servers: Sequence[str], name: str, inbox_prefix: str) -> None:
        """Connect to one of `servers`; raises what nats-py raises, within a few seconds."""
        async with asyncio.timeout(STEP_SECONDS * (len(servers) + 2)):
            await self.connect(
                servers=list(servers),
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

    @property
    def server_id(self) -> str | None:
        """The id of the NATS server at the other end."""
        server_id = self._server_info.get("server_id")
        return server_id if isinstance(server_id, str) else None

    @property
    def fault(self) -> Exception | None:
        """What went wrong last on this connection."""
        return self._fault or self.last_error

    async def deliver(self, subject: str, payload: bytes, seconds: float) -> None:
        """Publish, and wait until the server has taken it; raises ConnectionError when it does not in `seconds`."""
        await self.publish(subject, payload)
        # nats-py writes on the next turn of the loop. A question asked in this one would overtake the message.
        await asyncio.sleep(0)
        await self.answer(seconds)

    async def answer(self, seconds: float) -> None:
        """Wait for the server to answer; raises ConnectionError when it does not within `seconds`."""
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # Not rtt() and not flush(): both cancel their future, and a late answer to a cancelled one ends the reading;
        # and flush() reports success when the reading has ended already.
        await self._send_ping(answered)
        await asyncio.wait({answered, self.lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not answered.done():
            cause = self.fault or "closed" if self.lost.done() else f"no answer within {seconds:g} s"
            raise ConnectionError(str(cause))

    async def hush(self, subscription: Subscription, seconds: float) -> None:
        """Unsubscribe, and return once all that the server had sent until then was given to the callback.

        Raises ConnectionError when the server does not answer within `seconds`.
        """
        await self._send_unsubscribe(subscription._id)  # noqa: SLF001 - unsubscribe() throws away what arrives meanwhile
        await asyncio.sleep(0)
        await self.answer(seconds)
        while subscription.pending_msgs:  # noqa: ASYNC110 - nobody tells when a queue of nats-py is empty
            await asyncio.sleep(0)

    def cut(self) -> None:
        """End the connection without waiting; what was not sent yet is not sent any more."""
        self._mark_lost()
        self._pending.clear()
        self._pending_data_size = 0
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def drop(self) -> None:
        """Cut the connection and clear up behind it, within about a second."""
        # Before close(): that waits for a peer which may be gone to take what is still unsent.
        self.cut()
        await finish_within(DROP_SECONDS, self.close())
        # Where nats-py had begun to close by itself and failed at that, its subscriptions' tasks still wait.
        for subscription in list(self._subs.values()):
            subscription._stop_processing()  # noqa: SLF001 - unsubscribe() refuses to on a closed client

    async def _read_loop(self) -> None:
        # All ways to lose a connection lead through here: nats-py ends or cancels its reading first of all.
        try:
            await super()._read_loop()
        finally:
            self._mark_lost()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        try:
            await super()._process_msg(sid, subject, reply, data, headers)
        except (ValueError, LookupError):
            # Headers or a subject that are no text would end the reading. The message itself can still be judged.
            await super()._process_msg(sid, subject.decode(errors="replace").encode(), reply, data, b"")

    async def _on_error(self, error: Exception) -> None:
        self._fault = error
        # The two kinds of error that leave the connection as it is.
        if isinstance(error, SlowConsumerError):
            self.on_drop()
        if "permissions violation" in str(error).lower():
            self._on_refusal(str(error))

    def _mark_lost(self) -> None:
        if not self.lost.done():
            self.lost.set_result(None)


async def finish_within(seconds: float, work: Coroutine[Any, Any, Any]) -> None:
    """Run `work` to its end, at most about `seconds`, whatever it raises and whatever cancels us meanwhile.

    Raises CancelledError at the end if we were cancelled, and nothing else.
    """
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    cancelled: asyncio.CancelledError | None = None
    for patience in (seconds, CANCEL_SECONDS):
        deadline = loop.time() + patience
        while not task.done() and (left := deadline - loop.time()) > 0:
            try:
                await asyncio.wait({task}, timeout=left)
            except asyncio.CancelledError as error:
                cancelled = error
        task.cancel()
    if task.done() and not task.cancelled():
        # Looked at, so that asyncio does not complain that nobody did.
        task.exception()
    if cancelled is not None:
        raise cancelled


def cancellations() -> Callable[[], None]:
    """Return what raises CancelledError when the current task was cancelled after this call.

    wait_for of Python 3.11, which nats-py uses throughout, swallows a cancellation that comes together with a result.
    """
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()

    def heed() -> None:
        if task is not None and task.cancelling() > before:
            raise asyncio.CancelledError

    return heed
