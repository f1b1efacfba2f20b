"""Tables of other shapes than the built-in ones: owners that are numbers, registries that are not there."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest

from liveness.cases import case_of
from liveness.hearing import Hearing
from liveness.lease import Proof
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.store import Life, Progress, Store
from liveness.verdicts import Outcome
from tests.integration.conftest import case, finish_chunk

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

    others = await store.reclaims.settle([case(name, epochs[name]) for name in names[2:]])
    (verdict,) = await store.reclaims.settle([case("1", epochs["1"])])

    assert [one.outcome for one in others] == [Outcome.ENDED] * 4
    assert not any(one.items for one in others)
    assert verdict.items == {"job": 3}
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


@pytest.mark.parametrize("followed", [False, True])
async def test_rows_without_a_date_are_not_taken_from_the_next_process(
    connection: "asyncpg.Connection[asyncpg.Record]", stores: Callable[..., Any], *, followed: bool
) -> None:
    """A goodbye gives them back; but not where another process of the name was heard before the verdict."""
    await connection.execute(NUMBERED)
    await connection.execute("INSERT INTO workers DEFAULT VALUES")
    await connection.execute("INSERT INTO jobs (status, worker_id) VALUES ('doing', 1)")
    store = await stores(**NUMBERED_SETTINGS)
    book, hearing = LeaseTable(10.0), Hearing(0.0, max_gap=0.5)
    hearing.start(0.0)
    book.beat("1", 1.0, Heartbeat(incarnation="a"), 1.0)
    book.granted("1", (await begin(store, "1"))["1"])
    book.end("1", 2.0, Proof("released", told_at=2.0))
    if followed:
        book.beat("1", 3.0, Heartbeat(incarnation="b"), 3.0)
    lease = book.get("1")
    assert lease is not None
    assert lease.ending is not None

    (verdict,) = await store.reclaims.settle([case_of(lease, lease.ending, hearing, 4.0)])

    assert verdict.outcome is Outcome.ENDED
    assert verdict.items == ({} if followed else {"job": 1})


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


REGISTERED = """
    CREATE TABLE agents (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), label varchar(40) NOT NULL, seen timestamptz DEFAULT now(),
        state text NOT NULL DEFAULT 'ONLINE'
    );
    CREATE INDEX ON agents (label);
    CREATE TABLE runs (
        id bigserial PRIMARY KEY, state smallint NOT NULL, agent uuid NOT NULL, tenant text NOT NULL DEFAULT 'x',
        changed timestamptz NOT NULL DEFAULT now()
    );
    CREATE INDEX ON runs (agent) WHERE state = 1;
"""
NOBODY = "00000000-0000-0000-0000-000000000000"
REGISTERED_SETTINGS: dict[str, Any] = {
    "registry": {"table": "agents", "name": "label", "heartbeat": "seen", "status": "state"},
    "work": [
        {
            "name": "run", "table": "runs", "status": "state", "owner": "agent", "owner_is": "registry_id",
            "running": 1, "waiting": 0, "free_owner": NOBODY, "touched": "changed", "where": {"tenant": ["x", "y"]},
        }
    ],
}  # fmt: skip


async def agents(connection: "asyncpg.Connection[asyncpg.Record]", *labels: str) -> list[str]:
    """Register agents; return their ids."""
    rows = await connection.fetch("INSERT INTO agents (label) SELECT unnest($1::text[]) RETURNING id", labels)
    return [str(row["id"]) for row in rows]


async def runs(connection: "asyncpg.Connection[asyncpg.Record]", agent: str, count: int, **columns: Any) -> None:
    """Create runs that an agent holds, or whoever has no row any more."""
    await connection.execute(
        "INSERT INTO runs (state, agent, tenant, changed)"
        " SELECT 1, $1::text::uuid, $3, now() - make_interval(secs => $4) FROM generate_series(1, $2)",
        agent, count, columns.get("tenant", "x"), columns.get("untouched_for", 0.0),
    )  # fmt: skip


async def test_owners_that_are_ids_of_the_registry(
    connection: "asyncpg.Connection[asyncpg.Record]", stores: Callable[..., Any]
) -> None:
    """The name's rows are those of all its ids, and of no condition but its own; nobody's value is put back."""
    await connection.execute(REGISTERED)
    first, other, second = await agents(connection, "w1", "w2", "w1")
    await runs(connection, first, 3)
    await runs(connection, second, 2, tenant="y")
    await runs(connection, first, 1, tenant="z")
    await runs(connection, other, 4)
    await runs(connection, NOBODY, 1, untouched_for=60.0)
    store = await stores(reclaim_chunk=2, **REGISTERED_SETTINGS)
    epochs = await begin(store, "w1", "w2")

    assert await store.host.running(["w1", "w2", "w3"]) == {"w1": 5, "w2": 4}
    assert set(await store.host.holding({"w1": ("b", 0.0), "w3": ("b", 0.0)})) == {"w1"}
    (verdict,) = await store.reclaims.settle([case("w1", epochs["w1"])])
    assert verdict.items == {"run": 2}
    for _ in range(2):
        await finish_chunk(store, Progress())

    assert await store.reclaims.unfinished() == []
    rows = await connection.fetch("SELECT state, agent::text, count(*) FROM runs WHERE tenant <> 'z' GROUP BY 1, 2")
    assert {tuple(row) for row in rows} == {(0, NOBODY, 5), (1, other, 4), (1, NOBODY, 1)}
    assert await connection.fetchval("SELECT agent::text FROM runs WHERE tenant = 'z' AND state = 1") == first
    states = await connection.fetch("SELECT label, state FROM agents ORDER BY 1, 2")
    assert [tuple(row) for row in states] == [("w1", "OFFLINE"), ("w1", "OFFLINE"), ("w2", "ONLINE")]
    events = await connection.fetch(
        "SELECT type, subject, json_array_length(items) FROM liveness.outbox WHERE items IS NOT NULL"
    )
    assert {row["type"] for row in events} == {"run.reclaimed"}
    assert {row["subject"] for row in events} == {"run_id"}


@pytest.mark.parametrize("walk_seconds", [10.0, 0.0])
async def test_the_sweep_finds_orphans_by_their_registry_ids(
    connection: "asyncpg.Connection[asyncpg.Record]",
    stores: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    walk_seconds: float,
) -> None:
    """From owner to owner, and through the rows; an id that the registry lost is counted as ownerless, and left."""
    monkeypatch.setattr("liveness.store.host.WALK_SECONDS", walk_seconds)
    await connection.execute(REGISTERED)
    dead, alive, again, up = await agents(connection, "dead", "alive", "twice", "twice")
    await connection.execute("UPDATE agents SET state = 'OFFLINE' WHERE id = ANY ($1::text[]::uuid[])", [dead, again])
    for owner in (dead, alive, again, up, NOBODY, A):
        await runs(connection, owner, 2, untouched_for=60.0)
    store = await stores(**REGISTERED_SETTINGS)

    assert [found.worker for found in await store.host.orphaned(30.0)] == ["dead"]
    assert await store.host.ownerless(30.0) == {"run": 4}
    _, restorable = await store.epochs.restorable()
    assert {life.worker for life in restorable} == {"dead", "alive", "twice"}
    assert await store.epochs.known(["dead", "nobody"]) == {"dead"}
    (verdict,) = await store.reclaims.settle(
        [case("dead", None, must_be_up=False, untouched_for=30.0, reason="orphaned")]
    )
    assert verdict.items == {"run": 2}


@pytest.mark.parametrize(
    ("tables", "described", "table", "owner"),
    [
        (NUMBERED, NUMBERED_SETTINGS, "jobs", "worker_id"),
        (UNREGISTERED, UNREGISTERED_SETTINGS, "queue", "queue_manager_id"),
        (REGISTERED, REGISTERED_SETTINGS, "runs", "agent"),
    ],
)
async def test_an_index_leads_from_a_name_to_its_rows(
    connection: "asyncpg.Connection[asyncpg.Record]",
    stores: Callable[..., Any],
    tables: str,
    described: dict[str, Any],
    table: str,
    owner: str,
) -> None:
    """Casts and the way through the registry stand before it, not in its way; the walk of the sweep uses it, too."""
    await connection.execute(tables)
    store: Store = await stores(**described)
    statements = store.epochs._statements
    (work,) = statements.works
    await connection.execute("SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_sort = off")
    index = await connection.fetchval(
        "SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_attribute AS a ON a.attrelid = i.indrelid"
        " WHERE i.indrelid = $1::text::regclass AND a.attname = $2 AND i.indkey[0] = a.attnum",
        table, owner,
    )  # fmt: skip

    for name, parameters in (
        ("running_counts", (["1", A, "w1"], work.running)),
        ("find_owners", (["ONLINE"], work.running, 1.0)),
        ("holding_names", ([A], ["a"], [1.0], work.running, work.work)),
        ("reclaim_first", ("[]", work.running, work.waiting, 10, work.work, "x", False, 1.0, None)),
    ):
        if name == "holding_names" and work.touched is None:
            # Postgres sees that it finds nothing.
            continue
        plan = await connection.fetchval(
            f"EXPLAIN (FORMAT JSON) {statements.on(work, name)}", *parameters, *statements.given(name, work)
        )
        assert f'"Index Name": "{index}"' in plan, name
        assert f'"Node Type": "Seq Scan", "Relation Name": "{table}"' not in plan


async def test_work_of_two_kinds_may_share_a_table(
    connection: "asyncpg.Connection[asyncpg.Record]", stores: Callable[..., Any]
) -> None:
    """Told apart by a condition, in every statement that looks at both."""
    await connection.execute(UNREGISTERED)
    await connection.execute(
        "INSERT INTO queue (status, entrypoint, queue_manager_id)"
        " SELECT 'picked', ('{a,b,c}'::text[])[1 + n % 3], $1::text::uuid FROM generate_series(1, 9) AS n",
        A,
    )
    (one,) = UNREGISTERED_SETTINGS["work"]
    store = await stores(
        work=[one | {"where": {"entrypoint": "a"}}, one | {"name": "mail", "where": {"entrypoint": ["b", "x"]}}]
    )
    epochs = await begin(store, A)

    assert await store.epochs.known([A]) == {A}
    assert await store.host.running([A]) == {A: 6}
    (verdict,) = await store.reclaims.settle([case(A, epochs[A])])

    assert verdict.items == {"job": 3, "mail": 3}
    assert await connection.fetchval("SELECT count(*) FROM queue WHERE status = 'picked' AND entrypoint = 'c'") == 3
    # A row that has become of the other kind since is not told to be gone.
    moved = await connection.fetchval(
        "UPDATE queue SET entrypoint = 'b' WHERE id = (SELECT min(id) FROM queue"
        " WHERE entrypoint = 'a') RETURNING id::text"
    )
    told = {piece.work: piece for piece in (await store.history.of_work(moved, 20)).pieces}
    assert {work: (piece.row is not None, piece.elsewhere) for work, piece in told.items()} == {
        "job": (False, True),
        "mail": (True, False),
    }
    await connection.execute("DELETE FROM queue WHERE id::text = $1", moved)
    (gone,) = (await store.history.of_work(moved, 20)).pieces
    assert (gone.row, gone.elsewhere) == (None, False)


async def test_identifiers_and_values_cannot_become_sql(
    connection: "asyncpg.Connection[asyncpg.Record]", stores: Callable[..., Any]
) -> None:
    """Whatever characters a host's names hold, and whatever a setting says."""
    odd = "a\"b {owner} $9 -- '; DROP TABLE worker"
    column = '"' + odd.replace('"', '""') + '"'
    await connection.execute(
        f"CREATE TABLE {column} ({column} text, id bigint PRIMARY KEY, status text NOT NULL, changed timestamptz)"
    )
    value = "x'; DROP TABLE worker; --"
    insert = f"INSERT INTO {column} VALUES ('w1', 1, $1), ('w1', 2, 'other')"  # noqa: S608 - quoted above
    await connection.execute(insert, value)
    store = await stores(
        work=[{"name": "odd", "table": odd, "owner": odd, "running": value, "waiting": "'", "touch": ["changed"]}]
    )
    epochs = await begin(store, "w1")

    (verdict,) = await store.reclaims.settle([case("w1", epochs["w1"])])

    assert verdict.items == {"odd": 1}
    rows = await connection.fetch(f"SELECT * FROM {column} ORDER BY id")  # noqa: S608 - quoted above
    assert [tuple(row)[:3] for row in rows] == [(None, 1, "'"), ("w1", 2, "other")]
    assert await connection.fetchval("SELECT to_regclass('worker')") is not None


async def test_who_has_the_name_of_nobody_owns_nothing(
    connection: "asyncpg.Connection[asyncpg.Record]", stores: Callable[..., Any]
) -> None:
    """Rows with the value that says that nobody holds them are nobody's, whoever beats under it."""
    await connection.execute(
        "CREATE TABLE jobs (id bigserial PRIMARY KEY, status text NOT NULL, held_by text NOT NULL DEFAULT 'nobody',"
        " changed timestamptz NOT NULL DEFAULT now() - interval '1 hour')"
    )
    await connection.execute("INSERT INTO jobs (status) VALUES ('doing')")
    work = {"name": "job", "table": "jobs", "owner": "held_by", "running": "doing", "waiting": "todo"}
    store: Store = await stores(work=[work | {"free_owner": "nobody", "touched": "changed"}])
    epochs = await begin(store, "nobody")

    (verdict,) = await store.reclaims.settle([case("nobody", epochs["nobody"])])

    assert verdict.items == {}
    assert await store.host.orphaned(1.0) == []
    assert await store.host.ownerless(1.0) == {"job": 1}
    assert (await store.epochs.restorable())[1] == []
