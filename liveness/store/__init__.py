"""Postgres: the only part that imports asyncpg. Statements live in `liveness/sql`, one a file."""

import os
import socket

from liveness.settings import Settings
from liveness.store.catalogue import check_encoding, read_catalogue
from liveness.store.database import Database
from liveness.store.doubts import Doubt, Doubts, Kept
from liveness.store.epochs import Ended, Epochs, Former, Granted, Life
from liveness.store.host import Found, Host
from liveness.store.indexes import MissingIndex, missing_indexes
from liveness.store.leader import Leader, Seen
from liveness.store.leaks import Leaked, Leaks
from liveness.store.migrations import Migrated, check_schema, migrate
from liveness.store.outbox import Outbox, Pending
from liveness.store.reclaims import Progress, Reclaims
from liveness.work import BUILT_IN, Registry

__all__ = [
    "Database",
    "Doubt",
    "Ended",
    "Former",
    "Found",
    "Granted",
    "Kept",
    "Leader",
    "Leaked",
    "Life",
    "Migrated",
    "MissingIndex",
    "Pending",
    "Progress",
    "Seen",
    "Store",
    "migrate",
    "missing_indexes",
]


class Store:
    """Everything the service asks of Postgres, fitted to one host's tables.

    What it finds by itself is of our share: others' names end here.

    Whatever changes anything raises NotLeaderError unless `leader` has taken the lead and has it still.
    """

    def __init__(
        self,
        database: Database,
        leader: Leader,
        epochs: Epochs,
        reclaims: Reclaims,
        host: Host,
        outbox: Outbox,
        doubts: Doubts,
        leaks: Leaks,
    ) -> None:
        self.database = database
        self.leader = leader
        self.epochs = epochs
        self.reclaims = reclaims
        self.host = host
        self.outbox = outbox
        self.doubts = doubts
        self.leaks = leaks

    @classmethod
    async def open(cls, database: Database, settings: Settings) -> "Store":
        """Check the database, our schema and the host's tables and return the store, which does not lead.

        Raises CannotStartError naming what is missing, or wrong, and the fix.
        """
        await check_encoding(database)
        await check_schema(database)
        subjects = settings.subjects
        statements = await read_catalogue(database, settings.postgres_schema, Registry(), BUILT_IN, subjects)
        observed = settings.mode == "observe"
        myself = f"{socket.gethostname()}:{os.getpid()}"
        leader = Leader(database, myself, acts=not observed, share=subjects.share)
        return cls(
            database,
            leader,
            Epochs(database, leader, statements, subjects),
            Reclaims(
                database,
                leader,
                statements,
                decided_by=myself,
                observed=observed,
                chunk=settings.reclaim_chunk,
                subjects=subjects,
            ),
            Host(database, leader, statements, observed=observed, subjects=subjects),
            Outbox(database, leader, statements, observed=observed, subjects=subjects),
            Doubts(database, leader, statements, observed=observed, subjects=subjects),
            Leaks(database, leader, statements, decided_by=myself, observed=observed, chunk=settings.reclaim_chunk),
        )
