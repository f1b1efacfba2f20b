"""The pause as Postgres keeps it: begun and ended by operators, whether or not a service runs, and obeyed by triggers.

Why nothing is taken any more once `pause` has returned is in `schemas/postgres/liveness/0012_pause.sql`.
"""

import asyncio
import time
from collections.abc import Callable

import asyncpg

from liveness.answers import Pause
from liveness.errors import CannotStartError, DatabaseAwayError
from liveness.store.database import Database
from liveness.store.statements import statement_text
from liveness.work import quoted

# Whatever is under way is broken off by Postgres before this (seconds): each of a dozen statements within half a
# minute, and nearly always within milliseconds.
UNDER_WAY_SECONDS = 400.0


async def check_pause(database: Database) -> None:
    """Raise CannotStartError where nobody can pause. In a hurry, no version and no other part of the schema matters."""
    found = await database.fetch(statement_text("pause_rights"))
    if not found or not found[0]["there"]:
        state = "is older than the pause" if found else "has not been created"
        raise CannotStartError(f"the schema liveness {state}: run `liveness migrate`")
    if not found[0]["may"]:
        role = quoted(found[0]["role"])
        raise CannotStartError(
            f"the role {found[0]['role']} may not read and write liveness.pause: "
            f"GRANT USAGE ON SCHEMA liveness TO {role}; GRANT SELECT, UPDATE ON liveness.pause TO {role};"
        )


async def read_pause(database: Database) -> tuple[Pause | None, str | None]:
    """Return the pause, None where nothing is paused, and who has resumed last. Raises DatabaseAwayError."""
    (row,) = await database.fetch(statement_text("pause_read"))
    if not row["holds"]:
        return None, row["resumed_by"]
    return Pause(row["paused_by"], row["since"], max(row["held_for"], 0.0), row["why"], row["seconds_left"]), None


async def pause(
    database: Database, *, by: str, why: str, seconds: float | None, on_wait: Callable[[], None] = lambda: None
) -> Pause:
    """Pause, for so many seconds or until somebody resumes; once it has returned, nothing is taken any more.

    `on_wait` is called when a reclaim that began before has to be waited for. Raises DatabaseAwayError: perhaps it is
    paused, and what had begun before may still commit; ask again.
    """
    async with database.transaction() as connection:
        await connection.execute(statement_text("pause_begin"), by, why or None, seconds)
    until = time.monotonic() + UNDER_WAY_SECONDS
    while True:
        try:
            async with database.transaction() as connection:
                await connection.execute(statement_text("pause_turn"))
        except DatabaseAwayError as error:
            if not isinstance(error.__cause__, asyncpg.LockNotAvailableError) or time.monotonic() > until:
                raise
            on_wait()
            await asyncio.sleep(0)
        else:
            break
    found, _ = await read_pause(database)
    if found is None:
        raise DatabaseAwayError("it was paused, and is no longer: somebody resumed, or its time has run out")
    return found


async def resume(database: Database, *, by: str) -> bool:
    """End the pause; return whether there was one. Raises DatabaseAwayError."""
    return bool(await database.fetch(statement_text("pause_end"), by))
