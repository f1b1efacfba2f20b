"""What the host's tables would say to what may be asked of them later: tried at the start, and rolled back."""

import contextlib
from typing import NoReturn

import structlog

from liveness.errors import CannotStartError, DatabaseRefusedError
from liveness.store.database import Database
from liveness.store.statements import Statements
from liveness.work import WorkTable

log = structlog.get_logger("liveness.trials")


class _TriedError(Exception):
    """Rolls a trial back."""


async def try_quarantine(database: Database, statements: Statements) -> None:
    """Raise CannotStartError where a table refuses the status that work is to have which is set aside.

    Found out by doing it to a row that is RUNNING, else to one that waits, and rolling it back: an enum, a CHECK, a NOT
    NULL and a trigger speak up. Where there is no row to be had, only the type of the status is known to be right; what
    the table refuses later goes back to the queue, and is logged.
    """
    for work in statements.works:
        if work.quarantine is None:
            continue
        for status in (work.running, work.waiting):
            if await _try(database, statements, work, status):
                break
        else:
            log.warning("quarantine_untried", work=work.work, status=work.quarantine, doubt="no row to try it on")


async def _try(database: Database, statements: Statements, work: WorkTable, status: str) -> bool:
    """Return whether there was a row of this `status` that could be set aside."""
    rows = []
    try:
        with contextlib.suppress(_TriedError):
            async with database.transaction() as connection:
                rows = await connection.fetch(
                    statements.on(work, "try_quarantine"),
                    status,
                    "tried by liveness, and undone",
                    work.quarantine,
                    *statements.given("try_quarantine", work),
                )
                await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                _undo()
    except DatabaseRefusedError as error:
        raise CannotStartError(
            f"the table {work.table} refuses the status {work.quarantine!r} of work that is set aside ({error}): "
            f"change {work.setting + '.quarantine or ' if work.setting else ''}quarantine_status, or the table, or set "
            "crash_action = report"
        ) from error
    return bool(rows)


def _undo() -> NoReturn:
    raise _TriedError
