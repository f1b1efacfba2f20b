"""How a command asks the running service."""

import asyncio
from typing import TypeVar

import msgspec

from liveness.answers import Refusal
from liveness.bus import Bus
from liveness.errors import LivenessError, NatsAwayError, NoServiceError
from liveness.settings import Settings

# A sweep or a large reclaim takes this long at worst; that nobody is there, or we may not ask, is told at once.
ANSWER_SECONDS = 60.0
# To read takes milliseconds, and waits for no other command's sweep. A service that does not act is silent, and whoever
# asks how it is may well ask because it does not.
READ_SECONDS = 5.0
# Long enough for NATS to be reached, short enough for a person.
CONNECT_SECONDS = 5.0

Answer = TypeVar("Answer")


class RefusedError(LivenessError):
    """The service answered that it will not do it, and why."""


async def ask(
    settings: Settings, verb: str, request: object, answer: type[Answer], seconds: float = ANSWER_SECONDS
) -> Answer:
    """Return the service's answer, which may take so many seconds.

    Raises NatsAwayError when nobody can be asked, ForbiddenError when this login may not ask, NoServiceError when
    nobody answers, RefusedError when it refuses.
    """
    bus = Bus(settings.nats_url, name="liveness-command", access=settings.nats_access)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await bus.connect()
    except TimeoutError as error:
        raise NatsAwayError(f"NATS does not answer within {CONNECT_SECONDS:g} s: check nats_url") from error
    try:
        subject = settings.subjects.api(verb)
        payload = await bus.request(subject, msgspec.json.encode(request), seconds)
    finally:
        await bus.close()
    return decoded(payload, answer)


def decoded(payload: bytes, answer: type[Answer]) -> Answer:
    """Return what an answer says. Raises RefusedError if it is a refusal, NoServiceError if it is nonsense."""
    try:
        fields = msgspec.json.decode(payload, type=dict[str, object])
        if "error" in fields:
            raise RefusedError(msgspec.convert(fields, Refusal).error)
        return msgspec.convert(fields, answer)
    except msgspec.MsgspecError as error:
        raise NoServiceError(f"the answer is not one of liveness: {error}") from error
