"""nats-py's client until it is let in: what it says of us, to whom, and what it means when it is not.

nats-py turns to TLS when the server asks for it, and otherwise says in plain who we are, whatever we had wished.
"""

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any

from nats.aio.client import Client

from liveness.access import ANYBODY, Access
from liveness.addresses import asks_for_tls
from liveness.errors import NatsRefusedError
from liveness.refusals import missing_certificate, missing_tls, refusal_of


class Login(Client):
    """A client that logs in as an `Access` says, over TLS where that or the address demands it."""

    def __init__(self) -> None:
        super().__init__()
        self._access = ANYBODY
        self._by_url = False

    @property
    def lets_anybody_in(self) -> bool:
        """Whether the server asks nobody who it is: then nothing keeps one from speaking for another."""
        return not self._server_info.get("auth_required")

    @property
    def without_jetstream(self) -> bool:
        """Whether the server says that it has none, and that it is in no cluster, where another may have it."""
        return not self._server_info.get("jetstream") and not self._server_info.get("cluster")

    async def log_in(self, servers: Sequence[str], access: Access, **options: Any) -> None:
        """Connect to one of `servers`, once, with nats-py's `options`.

        Raises NatsRefusedError where we are not let in, or the server is not to be trusted, AccessError where a file of
        `access` cannot be used any more, and what nats-py raises.
        """
        self._access, self._by_url = access, asks_for_tls(servers)
        options |= access.options()
        try:
            await self.connect(servers=list(servers), **options)
            if not self.is_connected:
                # nats-py takes an end of the connection for an answer.
                raise ConnectionResetError("the connection ended before we were let in")  # noqa: TRY301
        except NatsRefusedError:
            raise
        except Exception as error:
            if isinstance(error, ssl.SSLError) and (writer := self._writer) is not None:
                # The loop has lost sight of it, so that nats-py would wait in vain for its end.
                writer.transport.abort()
                self._transport = None
            if (why := refusal_of(error, access, self._server_info)) is None:
                raise
            raise NatsRefusedError(why) from error

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001, FBT002
        await super()._process_info(info, initial_connection)
        if self._wants_tls and info.get("tls_available"):
            # It speaks both, and nats-py takes TLS only where it must.
            info["tls_required"] = True
        if info.get("tls_verify") and not self._access.certificate_file:
            raise NatsRefusedError(missing_certificate())

    def _connect_command(self) -> bytes:
        # Without TLS where we count on it: somebody in between may have taken the word out of the greeting.
        if self._wants_tls and not self._over_tls:
            raise NatsRefusedError(missing_tls(self._access))
        # nats-py says nothing of keys to a server that would let anybody in, as somebody else then (`no_auth_user`).
        self._auth_configured = True
        command: bytes = super()._connect_command()
        return command

    @property
    def _wants_tls(self) -> bool:
        return self._by_url or self._access.wants_tls

    @property
    def _over_tls(self) -> bool:
        if self._current_server is not None and self._current_server.uri.scheme == "wss":
            return True
        return self._writer is not None and self._writer.get_extra_info("ssl_object") is not None

    @property
    def _writer(self) -> asyncio.StreamWriter | None:
        writer: asyncio.StreamWriter | None = getattr(self._transport, "_io_writer", None)
        return writer
