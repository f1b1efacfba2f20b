"""liveness.store.Leader on the model of Postgres."""

import contextlib
from collections.abc import AsyncIterator
from functools import partial

from liveness.errors import DatabaseAwayError, DatabaseRefusedError
from tests.simulation.postgres import Postgres, Process


class Leader:
    """liveness.store.Leader on the model."""

    def __init__(self, postgres: Postgres, process: Process, holder: str) -> None:
        self.term: int | None = None
        self.term_at_begin = 0
        self.holder = holder
        self._postgres = postgres
        self._process = process

    async def take(self, timeout: float) -> bool:  # noqa: ASYNC109 - as the real one
        """Begin the next term if nobody renewed the last one for so long."""
        postgres = self._postgres

        def body(_began: float) -> int | None:
            now = postgres.world.now
            if postgres.read_only:
                raise DatabaseRefusedError("read only")
            if now - postgres.renewed_at <= timeout or postgres.acting:
                return None
            postgres.term, postgres.holder, postgres.renewed_at = postgres.term + 1, self.holder, now
            return postgres.term

        try:
            term = await postgres.transact(self._process, self, body, acts=False)
        except DatabaseRefusedError as error:
            raise DatabaseAwayError("read only") from error
        if term is not None:
            self.term = term
        return term is not None

    async def renew(self) -> bool:
        """Say that this one leads on."""
        term = self.term
        renewed = bool(await self._postgres.transact(self._process, self, partial(self._renew, term), acts=False))
        if not renewed and self.term == term:
            self.term = None
        return renewed

    def _renew(self, term: int | None, _began: float) -> bool:
        postgres = self._postgres
        if postgres.term != term or postgres.holder != self.holder:
            return False
        postgres.renewed_at = postgres.world.now
        return True

    async def look(self) -> None:
        """See Postgres' clock: nobody here leaves signs of life in its tables alone."""

    async def release(self) -> None:
        """Let the next one take over."""

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """A transaction that may act, and does nothing."""
        await self._postgres.transact(self._process, self, lambda _: None, acts=True)
        yield
