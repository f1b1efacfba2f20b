"""One who looks for dead workers in the database, a process: `python -m tests.benchmarks.scanners KIND DSN OLD EVERY`.

KIND is `report` (the bug report's scheduler, step by step as it proposes them) or `poll` (one statement that puts the
work of those back whose heartbeat is too old). OLD and EVERY are in seconds. Says {"scanning": true}, and
[worker, when] for each worker as soon as its work is back, by the machine's time.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg

from tests.benchmarks.child import say

FIND_STALE: Final = "SELECT id, worker_name FROM worker WHERE status = 'ONLINE' AND last_heartbeat_at < $1"
MARK_OFFLINE: Final = "UPDATE worker SET status = 'OFFLINE' WHERE id = $1"
RECLAIM: Final = """
    UPDATE workflow_execution
    SET status = 'PENDING', worker_id = NULL, updated_at = $1
    WHERE worker_id = $2 AND status = 'RUNNING'
"""
POLL: Final = """
    WITH lost AS (
        SELECT w.id, w.worker_id
        FROM workflow_execution AS w
        JOIN worker AS r ON r.worker_name = w.worker_id
        WHERE w.status = 'RUNNING' AND r.last_heartbeat_at < now() - make_interval(secs => $1)
        FOR UPDATE OF w SKIP LOCKED
    )
    UPDATE workflow_execution AS w
    SET status = 'PENDING', worker_id = NULL, updated_at = now()
    FROM lost AS l
    WHERE w.id = l.id
    RETURNING l.worker_id
"""


async def report(connection: "asyncpg.Connection[asyncpg.Record]", old: float) -> None:
    """Look once, as `reclaim_stuck_workflows` of the bug report does."""
    threshold = datetime.now(UTC) - timedelta(seconds=old)
    for worker in await connection.fetch(FIND_STALE, threshold):
        await connection.execute(MARK_OFFLINE, worker["id"])
        await connection.execute(RECLAIM, datetime.now(UTC), worker["worker_name"])
        say([worker["worker_name"], time.time()])


async def poll(connection: "asyncpg.Connection[asyncpg.Record]", old: float) -> None:
    """Look once, in one statement."""
    rows = await connection.fetch(POLL, old)
    now = time.time()
    for row in rows:
        say([row["worker_id"], now])


KINDS: Final[dict[str, Callable[..., Awaitable[None]]]] = {"report": report, "poll": poll}


async def scan(kind: str, dsn: str, old: float, every: float) -> None:
    """Look every so many seconds, for ever."""
    connection = await asyncpg.connect(dsn)
    say({"scanning": True})
    while True:
        await KINDS[kind](connection, old)
        # This is how such a scheduler works.
        await asyncio.sleep(every)


if __name__ == "__main__":
    asyncio.run(scan(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4])))
