"""What our role may do: read for the start, which needs all of it, and for `liveness check`."""

import msgspec

from liveness.findings import Finding
from liveness.rights import (
    ATTRIBUTES,
    MARK,
    NEVER_NEEDED,
    OF_OURS,
    Allowed,
    of_creation,
    of_registry,
    of_role,
    of_schema,
    of_work,
)
from liveness.settings import Settings
from liveness.store.catalogue import Table, read_catalogue
from liveness.store.database import Database
from liveness.store.statements import statement_text
from liveness.work import OWN_REGISTRY


async def allowed(database: Database, table: Table) -> Allowed:
    """Return what our role may do with a table of the host's. Raises DatabaseAwayError."""
    (row,) = await database.fetch(statement_text("catalogue_rights"), table.space, table.name, MARK, NEVER_NEEDED)
    return Allowed(
        role=row["role"],
        called=table.called,
        table=table.quoted,
        space=table.space,
        uses=row["uses"],
        creates=row["creates"],
        owns=row["owns"],
        columns={privilege: frozenset(row[privilege]) for privilege in ("SELECT", "UPDATE", "INSERT")},
        whole=tuple(row["whole"]),
    )


async def way_here(database: Database) -> tuple[str | None, bool]:
    """Return our address as Postgres sees it, None for a socket, and whether it hears us over TLS. Raises likewise."""
    (row,) = await database.fetch(statement_text("way"))
    return row["client"], row["encrypted"]


async def privileges_of(database: Database, settings: Settings) -> list[Finding]:
    """Return which rights our role lacks, and which it has and does not need.

    Raises CannotStartError for tables that are not as the settings say, DatabaseAwayError, DatabaseRefusedError.
    """
    (row,) = await database.fetch(statement_text("privileges"), OF_OURS)
    role: str = row["role"]
    found = of_schema(role, dict(zip(row["tables"], row["missing"], strict=True)), uses=row["uses"])
    found += of_role(role, {name: row[name] for name in ATTRIBUTES})
    if row["superuser"]:
        return found
    quarantined = [
        msgspec.structs.replace(work, quarantine=settings.quarantine_of(work)) for work in settings.tables.works
    ]
    described = msgspec.structs.replace(settings.tables, works=tuple(quarantined))
    statements, tables = await read_catalogue(database, settings.postgres_schema, described)
    looked_at = [(work.work, of_work(work, settings)) for work in statements.works]
    if statements.registry.schema != OWN_REGISTRY.schema:
        looked_at.insert(0, ("", of_registry(statements.registry, settings)))
    creates = []
    for key, needed in looked_at:
        has = await allowed(database, tables[key])
        found += has.findings(needed)
        creates += [has.space] if has.creates else []
    return found + of_creation(role, creates)
