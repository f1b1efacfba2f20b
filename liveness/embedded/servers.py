"""Both servers together."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from liveness.embedded.nats import NatsServer
from liveness.embedded.postgres import PostgresServer
from liveness.embedded.temporary import TemporaryFolder
from liveness.errors import EmbeddedError


class Servers:
    """NATS and Postgres in `folder`, running inside an `async with` block.

    Without `folder` they live in a temporary one, which is deleted at the end. `durable` makes Postgres keep
    what was committed over a crash of the machine. Entering raises EmbeddedError when one of them does not start.
    """

    def __init__(self, folder: Path | None = None, *, durable: bool = False) -> None:
        self._folder: Final = folder
        self._durable: Final = durable
        self._temporary: TemporaryFolder | None = None
        self._nats: NatsServer | None = None
        self._postgres: PostgresServer | None = None

    @property
    def nats(self) -> NatsServer:
        """The NATS server; raises EmbeddedError outside the block."""
        if self._nats is None:
            raise EmbeddedError("the servers are not running: enter them with `async with`")
        return self._nats

    @property
    def postgres(self) -> PostgresServer:
        """The Postgres server; raises EmbeddedError outside the block."""
        if self._postgres is None:
            raise EmbeddedError("the servers are not running: enter them with `async with`")
        return self._postgres

    @property
    def nats_url(self) -> str:
        """The NATS server's address; raises EmbeddedError outside the block."""
        return self.nats.url

    @property
    def postgres_dsn(self) -> str:
        """The Postgres server's address; raises EmbeddedError outside the block."""
        return self.postgres.dsn

    async def __aenter__(self) -> Self:
        folder = self._folder
        if folder is None:
            try:
                self._temporary = await asyncio.to_thread(TemporaryFolder.make)
            except OSError as error:
                raise EmbeddedError(f"no temporary folder for the servers, name one: {error}") from error
            folder = self._temporary.path
        self._nats = NatsServer(folder / "nats")
        self._postgres = PostgresServer(folder / "postgres", durable=self._durable)
        try:
            async with asyncio.TaskGroup() as starts:
                starts.create_task(self._nats.start())
                starts.create_task(self._postgres.start())
        except BaseException as error:
            await self._stop()
            if isinstance(error, BaseExceptionGroup):
                # The first is the cause: the other start was broken off because of it.
                raise error.exceptions[0] from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def _stop(self) -> None:
        try:
            servers = [server for server in (self._nats, self._postgres) if server is not None]
            outcomes = await asyncio.gather(*(server.stop() for server in servers), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, BaseException):
                    raise outcome
        finally:
            self._nats = self._postgres = None
            temporary, self._temporary = self._temporary, None
            if temporary is not None:
                await asyncio.to_thread(temporary.remove)
