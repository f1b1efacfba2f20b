"""What NATS says of lost connections, to its system account: a hint, by which a worker becomes suspect at once.

A connection of its own, which only listens; where it cannot be made, nothing else suffers. Whose a connection was is
told by the name that its client gave it, which anybody may choose: so it is no proof, and takes nothing. A worker that
has another one, and has beaten on it, before anybody looks is none.
"""

import asyncio
import re
from collections.abc import Callable

import msgspec
import structlog

from liveness.access import ANYBODY, Access
from liveness.bus import Bus
from liveness.errors import CannotStartError, SettingsError
from liveness.subjects import CONNECTION, name_fault

log = structlog.get_logger("liveness.advisories")

# Of every account, since workers may have one of their own.
SUBJECT = "$SYS.ACCOUNT.*.DISCONNECT"
# After which a server that has refused us is asked again (seconds).
REFUSED_SECONDS = 30.0


class _Client(msgspec.Struct):
    name: str = ""


class _Server(msgspec.Struct):
    id: str = ""


class _Disconnect(msgspec.Struct):
    client: _Client
    server: _Server


_decoder = msgspec.json.Decoder(_Disconnect)


class Advisories:
    """Listens. `on_disconnect(worker, server id)` is told of every worker's connection that was lost."""

    def __init__(self, url: str, on_disconnect: Callable[[str, str], None], access: Access = ANYBODY) -> None:
        """Raises SettingsError for a `url` that is none, and for an `access` that cannot be used."""
        try:
            self._bus = Bus(url, name="liveness advisories", access=access)
        except SettingsError as error:
            raise SettingsError(_of_the_system(error)) from error
        self.up = asyncio.Event()
        """Set when they are heard for the first time."""
        self.refused = asyncio.Event()
        """Set when NATS has refused us."""
        self._on_disconnect = on_disconnect
        self._bus.subscribe(SUBJECT, self._hear)

    async def keep(self) -> None:
        """Connect, and listen for ever."""
        while not self._bus.connected:
            try:
                await self._bus.connect(lambda cause: log.warning("advisories_waiting", cause=cause))
            except CannotStartError as error:
                log.warning(
                    "advisories_refused", cause=_of_the_system(error), advice="give a user of the system account"
                )
                self.refused.set()
                await asyncio.sleep(REFUSED_SECONDS)
        log.info("advisories_heard")
        self.up.set()
        await self._bus.keep()

    async def close(self) -> None:
        """End the connection."""
        await self._bus.close()

    def _hear(self, _subject: str, payload: bytes, _reply: str) -> None:
        try:
            said = _decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        worker = said.client.name.removeprefix(CONNECTION)
        if worker != said.client.name and name_fault(worker) is None:
            self._on_disconnect(worker, said.server.id)


def _of_the_system(error: Exception) -> str:
    """Return the text of `error` with the names of our settings in it."""
    return re.sub(r"\bnats_(url|credentials_file)\b", r"nats_system_\1", str(error))
