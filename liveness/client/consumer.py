"""A durable pull consumer on a JetStream stream: its messages one by one, over whatever connection there is.

nats-py's own pull subscription is not used: it takes an answer to an earlier pull for one to this, reads "the consumer
is gone" as "nothing there yet", and does not tell silence of the server from silence on the stream.
"""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api
from nats.js import errors as js_errors

from liveness.bounded import cancellations
from liveness.client.connection import Connection
from liveness.client.problems import Problems
from liveness.errors import CannotStartError
from liveness.link import Link

# A pull waits this long on the server for an event; a dead connection is found a little later than that.
PULL_SECONDS: Final = 5.0
# How long the server may take for any answer, and the longest wait between two attempts at anything.
PATIENCE_SECONDS: Final = 2.0
# So that two signs of work may be lost before the server gives the event to somebody else.
SIGNS_IN_AN_ACK_WAIT: Final = 3

# Where JetStream is asked in the account that the stream is in; another one has it under the name of its import.
API_PREFIX: Final = "$JS.API"

ACK: Final = b"+ACK"
NAK: Final = b"-NAK"
TERM: Final = b"+TERM"
_IN_PROGRESS: Final = b"+WPI"
_EXPIRED: Final = "408"


class Consumer:
    """The consumer `durable` of `stream`, made or adjusted when it is first used.

    `subjects` are the ones it shall get, all if empty; `ack_wait` is in seconds. JetStream is asked under `api_prefix`.
    A message is fetched when it is asked
    for and not before, so none runs out of its `ack_wait` while it waits behind another one.
    """

    def __init__(
        self,
        connection: Connection,
        problems: Problems,
        *,
        stream: str,
        durable: str,
        subjects: Sequence[str],
        ack_wait: float,
        api_prefix: str = API_PREFIX,
    ) -> None:
        self._connection = connection
        self._problems = problems
        self._stream = stream
        self._durable = durable
        self._subjects = sorted(subjects)
        self._ack_wait = ack_wait
        self._api_prefix = api_prefix
        self._bound: Link | None = None
        self._subscription: Subscription | None = None
        self._inbox = ""
        self._pulls = 0
        # None in between says that the connection is lost.
        self._arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._worked_on: Msg | None = None

    async def next(self) -> Msg:
        """Wait for the next message, through every outage; its delivery data can be read.

        Raises CannotStartError when the server refuses the consumer as it is asked for.
        """
        heed = cancellations()
        attempts = 0
        while True:
            link = None
            try:
                link = await self._connection.open()
                if link is not self._bound:
                    await self._bind(link)
                heed()
                message = await self._pull(link)
            except js_errors.BadRequestError as error:
                raise CannotStartError(
                    f"NATS refuses the consumer {self._durable!r} of the stream {self._stream!r}: {error.description}: "
                    "choose another durable name, or types that the stream holds"
                ) from error
            except Exception as error:  # noqa: BLE001 - whatever nats-py raises, the next attempt may succeed
                heed()
                # What the stream has to say is no fault of the connection.
                if isinstance(error, js_errors.APIError) or await self._stands(link, error):
                    self._bound = None
                    cause = getattr(error, "description", None) or str(error) or type(error).__name__
                    self._problems.report("stream", f"waits for the stream {self._stream!r}: {cause}")
            else:
                self._connection.proven()
                attempts = 0
                if message is not None:
                    return message
                continue
            attempts += 1
            await asyncio.sleep(self._connection.wait(attempts))

    async def make(self) -> None:
        """Make it, or adjust it, and take nothing of it. Raises what nats-py raises."""
        await self._bind(await self._connection.open())

    async def settle(self, message: Msg, verdict: bytes) -> None:
        """Tell the server what became of `message`, and wait until it knows, through every outage."""
        heed = cancellations()
        while True:
            link = await self._connection.open()
            try:
                await link.request(message.reply, verdict, timeout=PATIENCE_SECONDS)
            except nats_errors.NoRespondersError:
                # The consumer is gone, and with it who would want to know.
                settled = True
            except Exception as error:  # noqa: BLE001 - whatever nats-py raises, the next connection may do better
                # A server that answers and says nothing to this has heard it: the message was settled before.
                settled = await self._stands(link, error)
            else:
                settled = True
            heed()
            if settled:
                return

    @contextlib.contextmanager
    def working_on(self, message: Msg) -> Iterator[None]:
        """Tell the server again and again that `message` is being worked on, so that nobody else gets it."""
        self._worked_on = message
        signs = asyncio.create_task(self._give_signs(message))
        try:
            yield
        finally:
            self._worked_on = None
            signs.cancel()

    async def close(self, unsettled: Msg | None, verdict: bytes) -> None:
        """Settle the last message, give back what came after it, and end the connection."""
        if unsettled is not None:
            await self.settle(unsettled, verdict)
        link = self._connection.link
        if link is not None and link is self._bound and self._subscription is not None:
            # What the server still gave to our last pull would otherwise be nobody's until `ack_wait` is over.
            await link.hush(self._subscription, PATIENCE_SECONDS)
        for message in self._left_over():
            await self.settle(message, NAK)
        await self._connection.close()

    async def _give_signs(self, message: Msg) -> None:
        # Not only cancelled but told: wait_for of Python 3.11 may swallow a cancellation.
        while self._worked_on is message:
            await asyncio.sleep(self._ack_wait / SIGNS_IN_AN_ACK_WAIT)
            await self.settle(message, _IN_PROGRESS)

    async def _stands(self, link: Link | None, error: Exception) -> bool:
        """Say whether `link` still works after `error`; if not, give it up."""
        if link is None:
            return False
        try:
            await link.answer(PATIENCE_SECONDS)
        except Exception:  # noqa: BLE001 - whatever nats-py raises
            await self._connection.lose(link, str(error) or type(error).__name__)
            return False
        return True

    async def _bind(self, link: Link) -> None:
        context = link.jetstream(prefix=self._api_prefix, timeout=PATIENCE_SECONDS)
        try:
            config = (await context.consumer_info(self._stream, self._durable)).config
        except js_errors.NotFoundError:
            config = api.ConsumerConfig(name=self._durable, durable_name=self._durable)
            await context.add_consumer(self._stream, self._configured(config))
        else:
            if config.deliver_subject:
                raise js_errors.BadRequestError(description="it exists already and is no pull consumer")
            filters = sorted(config.filter_subjects or filter(None, [config.filter_subject]))
            if filters != self._subjects or config.ack_wait != self._ack_wait:
                config.name = self._durable
                await context.add_consumer(self._stream, self._configured(config))
        left = self._left_over()
        arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        self._arrived = arrived
        for message in left:
            arrived.put_nowait(message)
        self._inbox = link.new_inbox()
        self._subscription = await link.subscribe(f"{self._inbox}.*", cb=self._take)
        link.lost.add_done_callback(lambda _: arrived.put_nowait(None))
        self._bound = link

    def _configured(self, config: api.ConsumerConfig) -> api.ConsumerConfig:
        return config.evolve(
            ack_wait=self._ack_wait,
            filter_subject=self._subjects[0] if len(self._subjects) == 1 else None,
            filter_subjects=self._subjects if len(self._subjects) > 1 else None,
        )

    async def _pull(self, link: Link) -> Msg | None:
        """Return the next message, or None when there was none for a while."""
        if self._arrived.empty():
            self._pulls += 1
            wish = {"batch": 1, "expires": int(PULL_SECONDS * 1e9)}
            subject = f"{self._api_prefix}.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}"
            await link.publish(subject, msgspec.json.encode(wish), reply=f"{self._inbox}.{self._pulls}")
        async with asyncio.timeout(PULL_SECONDS + PATIENCE_SECONDS):
            while True:
                message = await self._arrived.get()
                if message is None:
                    raise ConnectionError(str(link.fault or "closed"))
                if message.reply:
                    if _is_delivery(message):
                        return message
                elif message.subject == f"{self._inbox}.{self._pulls}":
                    headers = message.headers or {}
                    if headers.get("Status") == _EXPIRED:
                        return None
                    raise js_errors.APIError(description=headers.get("Description", "no consumer answers"))

    async def _take(self, message: Msg) -> None:
        self._arrived.put_nowait(message)

    def _left_over(self) -> list[Msg]:
        left = []
        while not self._arrived.empty():
            message = self._arrived.get_nowait()
            if message is not None and message.reply and _is_delivery(message):
                left.append(message)
        return left


def _is_delivery(message: Msg) -> bool:
    # Anybody may publish to an inbox; what is no delivery of JetStream's is not for us.
    try:
        return message.metadata.num_delivered > 0
    except (nats_errors.Error, ValueError, LookupError, OverflowError):
        return False
