"""What a reclaim does to the host's tables and writes into ours."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import msgspec
import pytest

from liveness.eventdata import EVENT_TYPES
from liveness.store import Life, Progress, Store
from liveness.store import database as store_database
from liveness.verdicts import Outcome
from tests.conftest import HostTables
from tests.integration.conftest import Grant, case, finish_chunk


async def finish(store: Store) -> int:
    """Do everything that is left of unfinished reclaims; return the rows put back."""
    progress = Progress()
    while True:
        await finish_chunk(store, progress)
        if not progress.looked_at:
            return progress.items


async def test_work_goes_back_and_the_worker_is_offline(host: HostTables, store: Store, grant: Grant) -> None:
    """RUNNING rows of the NAME become PENDING without owner, touched, with a higher version; tasks too."""
    await host.worker("w1")
    (workflow,) = await host.workflows("w1", untouched_for=300.0)
    (task,) = await host.tasks("w1")

    verdicts = await store.reclaims.settle([case("w1", await grant("w1"))])

    row = await host.connection.fetchrow("SELECT *, now() - updated_at AS age FROM workflow_execution")
    assert row is not None
    assert (row["status"], row["worker_id"], row["version"]) == ("PENDING", None, 1)
    assert row["age"].total_seconds() < 60
    assert await host.connection.fetchval("SELECT status FROM task_execution WHERE id = $1::uuid", task) == "PENDING"
    assert await host.worker_status("w1") == ["OFFLINE"]
    assert verdicts[0].items == {"workflow": 1, "task": 1}
    assert await host.outbox() == [
        ("worker.expired", "w1"),
        ("workflow.reclaimed", workflow),
        ("task.reclaimed", task),
    ]


async def test_only_running_rows_of_that_name_are_touched(host: HostTables, store: Store, grant: Grant) -> None:
    """Rows WAITING, COMPLETED, FAILED or CANCELLED, and those of other workers, stay as they are."""
    others = ["WAITING", "COMPLETED", "FAILED", "CANCELLED", "PENDING"]
    rows = {status: (await host.workflows("w1", status=status))[0] for status in others}
    (of_another,) = await host.workflows("w2")

    await store.reclaims.settle([case("w1", await grant("w1"))])

    assert {status: await host.state(row) for status, row in rows.items()} == {
        status: (status, "w1") for status in others
    }
    assert await host.state(of_another) == ("RUNNING", "w2")


async def test_the_owner_is_the_name_and_not_the_id(host: HostTables, store: Store, grant: Grant) -> None:
    """Work is found by the worker's NAME; a row whose owner is the worker's id belongs to nobody that we ended."""
    worker_id = await host.worker("w1")
    (by_id,) = await host.workflows(worker_id)
    (by_name,) = await host.workflows("w1")

    await store.reclaims.settle([case("w1", await grant("w1"))])

    assert await host.state(by_name) == ("PENDING", None)
    assert await host.state(by_id) == ("RUNNING", worker_id)


async def test_every_row_of_the_name_is_marked_offline(host: HostTables, store: Store, grant: Grant) -> None:
    """A name registered several times is OFFLINE in every row that was up."""
    for status in ("ONLINE", "DEGRADED", "OFFLINE"):
        await host.worker("w1", status)

    await store.reclaims.settle([case("w1", await grant("w1"))])

    assert await host.worker_status("w1") == ["OFFLINE"] * 3


async def test_the_evidence_is_stored(host: HostTables, store: Store, grant: Grant) -> None:
    """The expiration holds last beat, ttl, deadline, who decided and why, and the transaction."""
    epoch = await grant("w1", incarnation="a")

    await store.reclaims.settle(
        [case("w1", epoch, silent_for=12.0, overdue=2.0, evidence={"why": "no heartbeat", "listened_for": 12.0})]
    )

    row = await host.connection.fetchrow(
        "SELECT *, extract(epoch FROM expired_at - last_heartbeat_at)::float AS silent,"
        " extract(epoch FROM expired_at - lapsed_at)::float AS overdue FROM liveness.expiration"
    )
    assert row is not None
    assert (row["worker"], row["epoch"], row["incarnation"], row["reason"]) == ("w1", epoch, "a", "lapsed")
    assert (row["silent"], row["overdue"], row["ttl"]) == (12.0, 2.0, 10.0)
    assert msgspec.json.decode(row["evidence"]) == {"why": "no heartbeat", "listened_for": 12.0}
    assert row["decided_by"]
    assert row["transaction_id"] > 0
    assert row["finished_at"] is not None


async def test_events_carry_exactly_what_the_contract_says(host: HostTables, store: Store, grant: Grant) -> None:
    """Each event's data has exactly the fields of its message type and decodes as it."""
    await host.workflows("w1")
    await host.tasks("w1")

    await store.reclaims.settle([case("w1", await grant("w1"))])

    events = await store.outbox.pending(0, 10)
    assert {event.type for event in events} == {"worker.expired", "workflow.reclaimed", "task.reclaimed"}
    for event in events:
        assert set(msgspec.json.decode(event.data)) == set(EVENT_TYPES[event.type].__struct_fields__)
        msgspec.json.decode(event.data, type=EVENT_TYPES[event.type])


async def test_kind_queue_and_count_are_told(host: HostTables, store: Store, grant: Grant) -> None:
    """The second reclaim of the same workflow says so, with kind and queue of the row."""
    (workflow,) = await host.workflows("w1")
    await store.reclaims.settle([case("w1", await grant("w1"))])
    await host.connection.execute("UPDATE workflow_execution SET status = 'RUNNING', worker_id = 'w2'")
    (first_time,) = await host.workflows("w2")

    await store.reclaims.settle([case("w2", await grant("w2"))])

    events = [(event.subject, msgspec.json.decode(event.data)) for event in await store.outbox.pending(0, 10)]
    told = [data for subject, data in events if subject == workflow]
    assert [data["reclaim_count"] for subject, data in events if subject == first_time] == [1]
    assert [event["reclaim_count"] for event in told] == [1, 2]
    assert [event["former_worker"] for event in told] == ["w1", "w2"]
    assert {(event["kind"], event["queue"]) for event in told} == {("invoice", "billing")}


async def test_a_release_is_told_as_such(host: HostTables, store: Store, grant: Grant) -> None:
    """A goodbye ends in worker.released, not in worker.expired."""
    await store.reclaims.settle([case("w1", await grant("w1"), reason="released", overdue=None)])

    assert await host.outbox() == [("worker.released", "w1")]


async def test_a_large_reclaim_goes_in_chunks(host: HostTables, stores: Callable[..., Any], grant: Grant) -> None:
    """What is beyond a chunk is fixed at once and put back later, each row once."""
    store = await stores(reclaim_chunk=30)
    await host.workflows("w1", 100)
    await host.tasks("w1", 70)

    verdicts = await store.reclaims.settle([case("w1", await grant("w1"))])
    assert verdicts[0].items == {"workflow": 30, "task": 30}
    assert await finish(store) == 110

    assert await host.count("PENDING") == 100
    events = await host.outbox()
    assert len(events) == len(set(events)) == 171
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.expiration WHERE finished_at IS NULL") == 0


async def test_a_crash_between_two_chunks_loses_nothing(
    host: HostTables, stores: Callable[..., Any], grant: Grant
) -> None:
    """Another service finishes a reclaim of which the first chunk was committed."""
    crashed = await stores(reclaim_chunk=10)
    await host.workflows("w1", 50)
    await crashed.reclaims.settle([case("w1", await grant("w1"))])

    assert await finish(await stores(reclaim_chunk=10)) == 40

    assert await host.count("PENDING") == 50
    events = await host.outbox()
    assert len(events) == len(set(events)) == 51


async def test_a_batch_settles_each_case_by_itself(host: HostTables, store: Store, grant: Grant) -> None:
    """Of a batch, the epoch that was over already does not touch the others."""
    epochs = {name: await grant(name) for name in ("a", "b", "c")}
    for name in epochs:
        await host.workflows(name)
    await store.reclaims.settle([case("b", epochs["b"])])

    verdicts = await store.reclaims.settle([case(name, epoch) for name, epoch in epochs.items()])

    assert {verdict.worker: verdict.outcome for verdict in verdicts} == {
        "a": Outcome.ENDED,
        "b": Outcome.OVER,
        "c": Outcome.ENDED,
    }
    assert await host.count("PENDING") == 3


async def test_a_beat_that_somebody_else_recorded_spares_the_life(host: HostTables, store: Store, grant: Grant) -> None:
    """When the registry shows a newer beat than any we heard, nothing is taken, and its age is told."""
    await host.worker("w1", silent_for=3.0)
    (workflow,) = await host.workflows("w1")
    epoch = await grant("w1")

    verdicts = await store.reclaims.settle([case("w1", epoch, spare_within=9.5)])

    assert verdicts[0].outcome is Outcome.SPARED
    assert verdicts[0].heard_ago == pytest.approx(3.0, abs=1.0)
    assert await host.state(workflow) == ("RUNNING", "w1")
    assert await host.outbox() == []
    verdicts = await store.reclaims.settle([case("w1", epoch, spare_within=2.5)])
    assert verdicts[0].outcome is Outcome.ENDED


async def test_a_beat_in_the_far_future_spares_nobody(host: HostTables, store: Store, grant: Grant) -> None:
    """A registry written by a broken clock does not keep the dead alive."""
    await host.worker("w1", silent_for=-86_400.0)

    verdicts = await store.reclaims.settle([case("w1", await grant("w1"), spare_within=9.5)])

    assert verdicts[0].outcome is Outcome.ENDED


async def test_observe_touches_nothing_of_the_hosts(host: HostTables, stores: Callable[..., Any], grant: Grant) -> None:
    """Mode observe ends the epoch, records history and events, and leaves the host's rows as they are, to the byte."""
    store = await stores(mode="observe", reclaim_chunk=2)
    await host.worker("w1")
    await host.workflows("w1", 5)
    before = await host.connection.fetch("SELECT w.*, xmin::text FROM workflow_execution AS w ORDER BY id")
    registry = await host.connection.fetch("SELECT r.*, xmin::text FROM worker AS r")

    verdicts = await store.reclaims.settle([case("w1", await grant("w1"))])
    await finish(store)

    assert verdicts[0].outcome is Outcome.ENDED
    assert await host.connection.fetch("SELECT w.*, xmin::text FROM workflow_execution AS w ORDER BY id") == before
    assert await host.connection.fetch("SELECT r.*, xmin::text FROM worker AS r") == registry
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.reclaim WHERE observed") == 5
    events = await store.outbox.pending(0, 10)
    assert len(events) == 6
    assert all(event.observed for event in events)
    tallies = store.reclaims.tallies
    assert (tallies.items, tallies.ended) == ({("workflow", "lapsed", "observe"): 5}, {("lapsed", "observe"): 1})


async def test_a_thousand_workers_half_of_them_silent(host: HostTables, store: Store) -> None:
    """Exactly the silent half's rows are PENDING, with one event each; the other half is untouched."""
    names = [f"w{number}" for number in range(1000)]
    epochs = (await store.epochs.grant(Life(name, None, None, 10.0) for name in names)).epochs
    await host.connection.execute(
        "INSERT INTO workflow_execution (worker_id, status) SELECT 'w' || n, 'RUNNING'"
        " FROM generate_series(0, 999) AS n, generate_series(1, 10)"
    )
    silent = names[::2]

    await store.reclaims.settle([case(name, epochs[name]) for name in silent])
    await finish(store)

    owners = {
        row["worker_id"]
        for row in await host.connection.fetch("SELECT worker_id FROM workflow_execution WHERE status = 'RUNNING'")
    }
    assert owners == set(names[1::2])
    assert await host.count("PENDING") == 5000
    events = [event for event in await store.outbox.pending(0, 10_000) if event.type == "workflow.reclaimed"]
    assert len({event.id for event in events}) == len({event.subject for event in events}) == 5000


async def test_concurrent_reclaims_of_different_workers_do_not_wait_for_each_other(
    host: HostTables, stores: Callable[..., Any], grant: Grant
) -> None:
    """Two replicas that end different workers at once both succeed."""
    first, second = await stores(), await stores()
    epochs = [await grant(name) for name in ("a", "b")]
    await host.workflows("a", 200)
    await host.workflows("b", 200)

    await asyncio.gather(first.reclaims.settle([case("a", epochs[0])]), second.reclaims.settle([case("b", epochs[1])]))

    assert await host.count("PENDING") == 400


async def test_optional_columns_may_be_missing(dsn: str, host: HostTables, stores: Callable[..., Any]) -> None:
    """A host whose tables have neither version nor kind nor queue is served all the same."""
    await host.connection.execute(
        "ALTER TABLE workflow_execution DROP COLUMN version, DROP COLUMN kind, DROP COLUMN queue CASCADE"
    )
    store = await stores()
    epoch = (await store.epochs.grant([Life("w1", None, None, 10.0)])).epochs["w1"]
    connection = await asyncpg.connect(dsn)
    await connection.execute("INSERT INTO workflow_execution (worker_id, status) VALUES ('w1', 'RUNNING')")
    await connection.close()

    verdicts = await store.reclaims.settle([case("w1", epoch)])

    assert verdicts[0].items == {"workflow": 1}


async def test_a_large_life_does_not_wade_through_its_own_remainder(
    host: HostTables, stores: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Postgres takes the index, because there was a remainder before, it is no slower for each row it writes."""
    store = await stores(reclaim_chunk=10)
    await host.connection.execute(
        "INSERT INTO liveness.remainder (worker, epoch, work, id, mark)"
        " SELECT 'w1', 1, 'former', n::text, '1' FROM generate_series(1, 20000) AS n"
    )
    await host.connection.execute("ANALYZE liveness.remainder")
    await host.workflows("w2", 15_000)
    granted = await store.epochs.grant([Life("w2", None, None, 10.0)])
    # A tenth of what it has, and some six times what it takes.
    monkeypatch.setattr(store_database, "PATIENT_SECONDS", 3.0)

    (verdict,) = await store.reclaims.settle([case("w2", granted.epochs["w2"])])

    assert verdict.items == {"workflow": 10}
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.remainder WHERE worker = 'w2'") == 14_990
