"""Postgres: the only part that imports asyncpg. Statements live in `liveness/sql`, one a file."""

import os
import socket

from liveness.settings import Settings
from liveness.store.database import Database
from liveness.store.epochs import Epochs, Life
from liveness.store.host import Found, Host, read_catalogue
from liveness.store.migrations import Migrated, check_schema, migrate
from liveness.store.outbox import Outbox, Pending
from liveness.store.reclaims import Progress, Reclaims
from liveness.work import BUILT_IN, Registry

__all__ = ["Database", "Found", "Life", "Migrated", "Pending", "Progress", "Store", "migrate"]


class Store:
    """Everything the service asks of Postgres, fitted to one host's tables."""

    def __init__(self, database: Database, epochs: Epochs, reclaims: Reclaims, host: Host, outbox: Outbox) -> None:
        self.database = database
        self.epochs = epochs
        self.reclaims = reclaims
        self.host = host
        self.outbox = outbox

    @classmethod
    async def open(cls, database: Database, settings: Settings) -> "Store":
        """Check the schema and the host's tables and return the store.

        Raises CannotStartError naming what is missing and the fix.
        """
        await check_schema(database)
        statements = await read_catalogue(database, settings.postgres_schema, Registry(), BUILT_IN)
        observed = settings.mode == "observe"
        return cls(
            database,
            Epochs(database, statements),
            Reclaims(
                database,
                statements,
                decided_by=f"{socket.gethostname()}:{os.getpid()}",
                observed=observed,
                chunk=settings.reclaim_chunk,
            ),
            Host(database, statements, observed=observed),
            Outbox(database, statements),
        )
