"""Postgres: the only part that imports asyncpg. Statements live in `liveness/sql`, one a file."""

import os
import socket
from dataclasses import dataclass

import msgspec

from liveness.settings import Settings
from liveness.store.aged import BEGINNING, Aged, Behind
from liveness.store.budgets import Budgets
from liveness.store.catalogue import check_encoding, read_catalogue
from liveness.store.database import CONNECTIONS_MOST, LISTEN_CHECK_SECONDS, PATIENT_SECONDS, Database
from liveness.store.doubts import Doubt, Doubts, Kept
from liveness.store.epochs import Ended, Epochs, Former, Granted, Life
from liveness.store.fitting import check_fit, hidden_tables
from liveness.store.history import History
from liveness.store.host import Found, Host
from liveness.store.indexes import MissingIndex, missing_indexes, tell_unserved
from liveness.store.leader import Leader, Seen
from liveness.store.leaks import Leaked, Leaks
from liveness.store.migrations import Migrated, check_schema, migrate
from liveness.store.outbox import Outbox, Pending
from liveness.store.pauses import check_pause, pause, read_pause, resume
from liveness.store.privileges import privileges_of, way_here
from liveness.store.reclaims import Progress, Reclaims
from liveness.store.rows import RETRY_MOST, Left, Walk, refused_rows
from liveness.store.server import Ahead, Holder, holders, read_limits, rows_ahead
from liveness.store.trials import try_quarantine
from liveness.work import CrashPolicy

__all__ = [
    "BEGINNING",
    "CONNECTIONS_MOST",
    "LISTEN_CHECK_SECONDS",
    "PATIENT_SECONDS",
    "RETRY_MOST",
    "Ahead",
    "Behind",
    "Database",
    "Doubt",
    "Ended",
    "Former",
    "Found",
    "Granted",
    "History",
    "Holder",
    "Kept",
    "Leader",
    "Leaked",
    "Left",
    "Life",
    "Migrated",
    "MissingIndex",
    "Pending",
    "Progress",
    "Seen",
    "Store",
    "Walk",
    "check_encoding",
    "check_pause",
    "check_schema",
    "hidden_tables",
    "holders",
    "migrate",
    "missing_indexes",
    "pause",
    "privileges_of",
    "read_limits",
    "read_pause",
    "refused_rows",
    "resume",
    "rows_ahead",
    "way_here",
]


# Rows that one transaction forgets at most: some ten milliseconds, so that nobody has to wait for it.
FORGOTTEN_AT_ONCE = 2_000


@dataclass(frozen=True, eq=False)
class Store:
    """Everything the service asks of Postgres, fitted to one host's tables.

    What it finds by itself is of our share: others' names end here.

    Whatever changes anything raises NotLeaderError unless `leader` has taken the lead and has it still.
    """

    database: Database
    leader: Leader
    epochs: Epochs
    reclaims: Reclaims
    host: Host
    outbox: Outbox
    history: History
    doubts: Doubts
    leaks: Leaks
    aged: Aged

    @classmethod
    async def open(cls, database: Database, settings: Settings) -> "Store":
        """Check the database, our schema and the host's tables and return the store, which does not lead.

        Raises CannotStartError naming what is missing, or wrong, and the fix.
        """
        await check_encoding(database)
        await check_schema(database)
        subjects = settings.subjects
        works = [
            msgspec.structs.replace(work, quarantine=settings.quarantine_of(work)) for work in settings.tables.works
        ]
        tables = msgspec.structs.replace(settings.tables, works=tuple(works))
        statements, found = await read_catalogue(database, settings.postgres_schema, tables, subjects)
        await check_fit(database, settings, statements, found)
        await tell_unserved(database, settings, statements)
        observed = settings.mode == "observe"
        if not observed:
            await try_quarantine(database, statements)
        myself = f"{socket.gethostname()}:{os.getpid()}"
        crashes = CrashPolicy(budget=settings.crash_budget, window=settings.crash_window)
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
                budgets=Budgets(statements, crashes),
                subjects=subjects,
            ),
            Host(database, leader, statements, observed=observed, subjects=subjects),
            Outbox(database, leader, statements, observed=observed, subjects=subjects),
            History(database, statements),
            Doubts(database, leader, statements, observed=observed, subjects=subjects),
            Leaks(
                database,
                leader,
                statements,
                decided_by=myself,
                observed=observed,
                chunk=settings.reclaim_chunk,
                crashes=crashes,
            ),
            Aged(leader, statements, retention=settings.kept_for, batch=FORGOTTEN_AT_ONCE),
        )
