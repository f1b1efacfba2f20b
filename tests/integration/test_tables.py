"""Tables of other shapes than the built-in ones: owners that are numbers, registries that are not there."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from liveness.store import Life, Store
from liveness.verdicts import Outcome
from tests.integration.conftest import case

# As in procrastinate: the owner is the number of a row of the registry, which has no status; no row bears a date.
NUMBERED = """
    CREATE TYPE job_status AS ENUM ('todo', 'doing', 'succeeded');
    CREATE TABLE workers (
        id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, last_heartbeat timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE jobs (
        id bigserial PRIMARY KEY, queue_name varchar(128) NOT NULL DEFAULT 'a',
        status job_status NOT NULL DEFAULT 'todo',
        attempts integer NOT NULL DEFAULT 0, queueing_lock text,
        worker_id bigint REFERENCES workers ON DELETE SET NULL
    );
    CREATE INDEX ON jobs (worker_id) WHERE worker_id IS NOT NULL AND status = 'doing';
    CREATE UNIQUE INDEX one_queued ON jobs (queueing_lock) WHERE status = 'todo';
"""
NUMBERED_SETTINGS: dict[str, Any] = {
    "registry": {"table": "workers", "name": "id", "heartbeat": "last_heartbeat"},
    "work": [
        {
            "name": "job", "table": "jobs", "owner": "worker_id", "running": "doing", "waiting": "todo",
            "queue": "queue_name", "bump": ["attempts"],
        }
    ],
}  # fmt: skip
# As in PgQueuer: the owner is a UUID that is in no other table.
UNREGISTERED = """
    CREATE TYPE queue_status AS ENUM ('queued', 'picked');
    CREATE TABLE queue (
        id serial PRIMARY KEY, status queue_status NOT NULL, entrypoint text NOT NULL DEFAULT 'e',
        queue_manager_id uuid, updated timestamptz NOT NULL DEFAULT now(), heartbeat timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX ON queue (queue_manager_id) WHERE status = 'picked';
"""
UNREGISTERED_SETTINGS: dict[str, Any] = {
    "work": [
        {
            "name": "job", "table": "queue", "owner": "queue_manager_id", "running": "picked", "waiting": "queued",
            "kind": "entrypoint", "touched": "updated", "touch": ["updated"],
        }
    ],
}  # fmt: skip
A, B = "0a0a0a0a-0000-4000-8000-00000000000a", "0b0b0b0b-0000-4000-8000-00000000000b"


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    """The host's own connection."""
    opened = await asyncpg.connect(dsn)
    yield opened
    await opened.close()


async def begin(store: Store, *names: str) -> dict[str, int]:
    """Grant these names epochs."""
    return dict((await store.epochs.grant([Life(name, None, None, 10.0) for name in names])).epochs)


async def test_owners_that_are_numbers(
    connection: "asyncpg.Connection[asyncpg.Record]", stores: Callable[..., Any]
) -> None:
    """The dead worker's rows go back, the living one's stay, and a name that is no number owns nothing."""
    await connection.execute(NUMBERED)
    await connection.execute("INSERT INTO workers DEFAULT VALUES; INSERT INTO workers DEFAULT VALUES")
    await connection.execute(
        "INSERT INTO jobs (status, worker_id) SELECT 'doing', 1 + n % 2 FROM generate_series(1, 6) AS n"
    )
    store = await stores(**NUMBERED_SETTINGS)
    names = ["1", "2", "001", "one", "9" * 19, "-1"]
    epochs = await begin(store, *names)

    verdicts = await store.reclaims.settle([case(name, epochs[name]) for name in names if name != "2"])

    assert {verdict.worker: dict(verdict.items) for verdict in verdicts if verdict.items} == {"1": {"job": 3}}
    rows = await connection.fetch(
        "SELECT status::text, worker_id, attempts, count(*) FROM jobs GROUP BY 1, 2, 3 ORDER BY 1"
    )
    assert [tuple(row) for row in rows] == [("doing", 2, 0, 3), ("todo", None, 1, 3)]
    assert await store.host.running(["1", "2", "one"]) == {"2": 3}


async def test_a_registry_without_a_status(
    connection: "asyncpg.Connection[asyncpg.Record]", stores: Callable[..., Any]
) -> None:
    """Whose life ended is not up any more, though its row stays as it was; a beat in the row brings it back."""
    await connection.execute(NUMBERED)
    await connection.execute("INSERT INTO workers (last_heartbeat) VALUES (now() - interval '1 hour'), (now())")
    store = await stores(**NUMBERED_SETTINGS)
    assert [found.worker for found in await store.host.stale(60.0)] == ["1"]
    assert sorted(life.worker for life in (await store.epochs.restorable())[1]) == ["1", "2"]

    verdicts = await store.reclaims.settle([case("1", None, reason="stale", must_be_up=True, spare_within=60.0)])

    assert verdicts[0].outcome is Outcome.ENDED
    assert await store.host.stale(60.0) == []
    assert sorted(life.worker for life in (await store.epochs.restorable())[1]) == ["2"]
    assert await store.reclaims.unfinished() == []
    await connection.execute("UPDATE workers SET last_heartbeat = now() WHERE id = 1")
    assert sorted(life.worker for life in (await store.epochs.restorable())[1]) == ["1", "2"]


async def test_rows_without_a_date_are_never_taken_on_age(
    connection: "asyncpg.Connection[asyncpg.Record]", stores: Callable[..., Any]
) -> None:
    """Their owner is reported, an orphan's case takes nothing, and an operator's word takes all."""
    await connection.execute(NUMBERED)
    await connection.execute("INSERT INTO workers (last_heartbeat) VALUES ('-infinity')")
    await connection.execute("INSERT INTO jobs (status, worker_id) VALUES ('doing', 1)")
    store = await stores(**NUMBERED_SETTINGS)
    await store.reclaims.settle([case("1", None, reason="stale", must_be_up=True, untouched_for=0.0)])

    (orphan,) = await store.host.orphaned(0.0)
    assert (orphan.worker, orphan.undated) == ("1", "job")
    await store.reclaims.settle([case("1", None, reason="orphaned", must_be_up=False, untouched_for=0.0)])
    assert await connection.fetchval("SELECT count(*) FROM jobs WHERE status = 'doing'") == 1

    await store.reclaims.settle([case("1", None, reason="operator")])
    assert await connection.fetchval("SELECT count(*) FROM jobs WHERE status = 'doing'") == 0


async def test_owners_that_are_uuids_and_no_registry(
    connection: "asyncpg.Connection[asyncpg.Record]", stores: Callable[..., Any]
) -> None:
    """Ours serves: who beats is registered, who dies is marked, and an orphan is found by its age."""
    await connection.execute(UNREGISTERED)
    await connection.execute(
        "INSERT INTO queue (status, queue_manager_id, updated)"
        " SELECT 'picked', ($1::text[])[1 + n % 2]::uuid, now() - interval '1 hour' FROM generate_series(1, 6) AS n",
        [A, B],
    )
    store = await stores(**UNREGISTERED_SETTINGS)
    await store.host.register([A, "not-a-uuid"])
    epochs = await begin(store, A)

    assert await store.epochs.known([A, B, A.upper()]) == {A, B}
    assert [found.worker for found in await store.host.orphaned(60.0)] == [B]
    (verdict,) = await store.reclaims.settle([case(A, epochs[A])])
    assert verdict.items == {"job": 3}
    assert await connection.fetchval("SELECT status FROM liveness.worker WHERE worker_name = $1", A) == "OFFLINE"
    (verdict,) = await store.reclaims.settle([case(B, None, reason="orphaned", must_be_up=False, untouched_for=60.0)])
    assert verdict.items == {"job": 3}
    assert (
        await connection.fetchval("SELECT count(*) FROM queue WHERE status = 'queued' AND queue_manager_id IS NULL")
        == 6
    )
