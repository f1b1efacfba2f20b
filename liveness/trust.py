"""Whether names are on trust: whether anybody on NATS can speak for any worker. Pure words and one look.

What can be known for sure is whether the server asks who somebody is. Where it does, only its permissions keep one
worker from speaking for another, and those are for `deploy/nats` to give.
"""

import asyncio
from typing import Final

from liveness.bus import Bus
from liveness.errors import LivenessError, NatsAwayError
from liveness.findings import Finding, Weight
from liveness.settings import Settings

ON_TRUST: Final = (
    "NATS asks nobody who it is, so any client can beat for any worker, release it, or say that a new one has begun"
)
ADVICE: Final = "give each worker a login of its own, with the permissions in deploy/nats (docs/nats.md)"


async def names_on_trust(settings: Settings, seconds: float) -> list[Finding]:
    """Return a finding where names are on trust; none where NATS cannot be asked within `seconds`."""

    def give_up(cause: str) -> None:
        raise NatsAwayError(cause)

    try:
        bus = Bus(settings.nats_url, name="liveness-command", access=settings.nats_access)
        try:
            async with asyncio.timeout(seconds):
                await bus.connect(give_up)
            on_trust = bus.lets_anybody_in
        finally:
            await bus.close()
    except (LivenessError, TimeoutError):
        return []
    return [Finding(check="trust", weight=Weight.BETTER, about="NATS", says=ON_TRUST, why=ADVICE)] if on_trust else []
