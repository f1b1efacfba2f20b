"""The host's own counters of attempts: what a crash does to them, on a real Postgres."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from liveness.eventdata import EVENT_TYPES
from liveness.store import Life, Store
from liveness.work import TASKS, WORKFLOWS
from tests.conftest import HostTables
from tests.integration.conftest import case
from tests.integration.test_reclaim import finish

Counts = Callable[..., Awaitable[Store]]


@pytest.fixture
def counts(stores: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Counts:
    """Open a store that treats tasks so."""

    async def opened(**policy: Any) -> Store:
        tasks = msgspec.structs.replace(TASKS, attempts="execution_count", failed="FAILED", **policy)
        monkeypatch.setattr("liveness.tables.BUILT_IN", (WORKFLOWS, tasks))
        store: Store = await stores(reclaim_chunk=2)
        return store

    return opened


async def end(store: Store, worker: str, **fields: Any) -> None:
    """End the life of a worker that holds something."""
    epoch = (await store.epochs.grant([Life(worker, None, None, 10.0)])).epochs[worker]
    await store.reclaims.settle([case(worker, epoch, **fields)])


async def tasks(host: HostTables) -> list[tuple[str, str | None, int]]:
    """Return status, owner and attempts of every task."""
    rows = await host.connection.fetch("SELECT * FROM task_execution ORDER BY execution_count, id")
    return [(row["status"], row["worker_id"], row["execution_count"]) for row in rows]


async def test_a_crash_leaves_the_counter_alone(host: HostTables, counts: Counts) -> None:
    """By default: it is the host's, and a worker that died says nothing of the work."""
    store = await counts(on_crash="put_back")
    await host.tasks("w1")

    await end(store, "w1", crash=True)

    assert await tasks(host) == [("PENDING", None, 0)]


async def test_a_crash_counts_as_an_attempt(host: HostTables, counts: Counts) -> None:
    """Where the host is said to want it; it goes back however many there were."""
    store = await counts(on_crash="count")
    await host.tasks("w1")
    await host.connection.execute("UPDATE task_execution SET execution_count = 7")

    await end(store, "w1", crash=True)

    assert await tasks(host) == [("PENDING", None, 8)]


@pytest.mark.parametrize(("limit", "failing"), [("max_attempts", [2, 3]), ("max_retries", [3])])
async def test_a_crash_that_uses_the_attempts_up_fails_the_work(
    host: HostTables, counts: Counts, limit: str, failing: list[int]
) -> None:
    """Of `max_attempts` the last one may be used, of `max_retries` the first attempt is none; others go back."""
    store = await counts(on_crash="fail", **{limit: "max_retries"})
    for made in range(4):
        (task,) = await host.tasks("w1")
        await host.connection.execute("UPDATE task_execution SET execution_count = $2 WHERE id = $1::uuid", task, made)

    await end(store, "w1", crash=True)
    # The second half did not fit into the chunk.
    await finish(store)

    assert [state for state, _, _ in await tasks(host)] == [
        "FAILED" if made in failing else "PENDING" for made in range(4)
    ]
    assert [made for _, _, made in await tasks(host)] == [1, 2, 3, 4]
    events = [event for event in await store.outbox.pending(0, 100) if event.type.startswith("task.")]
    assert [event.type for event in events].count("task.exhausted") == len(failing)
    assert len(events) == 4
    for event in events:
        msgspec.json.decode(event.data, type=EVENT_TYPES[event.type])
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.reclaim WHERE outcome = 'exhausted'") == len(
        failing
    )


async def test_what_is_exhausted_did_not_go_back(host: HostTables, counts: Counts) -> None:
    """Neither the verdict nor an operator is told that it did."""
    store = await counts(on_crash="fail", max_attempts="max_retries")
    one, _ = await host.tasks("w1", 2)
    await host.connection.execute("UPDATE task_execution SET execution_count = 9 WHERE id = $1::uuid", one)
    epoch = (await store.epochs.grant([Life("w1", None, None, 10.0)])).epochs["w1"]

    (verdict,) = await store.reclaims.settle([case("w1", epoch, crash=True)])

    assert verdict.items == {"task": 1}
    assert await store.reclaims.count("w1", epoch) == 1


async def test_what_was_wanted_is_no_attempt(host: HostTables, counts: Counts) -> None:
    """A release puts work back as it was, though its attempts are used up."""
    store = await counts(on_crash="fail", max_attempts="max_retries")
    await host.tasks("w1")
    await host.connection.execute("UPDATE task_execution SET execution_count = 9")

    await end(store, "w1", reason="released")

    assert await tasks(host) == [("PENDING", None, 9)]
