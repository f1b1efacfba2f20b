import signal

import pytest
from nats.aio.client import Client

from liveness.embedded import NatsServer
from liveness.store.outbox import unpacked
from liveness.store.statements import statement_text
from tests.conftest import HostTables

from .conftest import Gate, Serve, beating, eventually
from .told import of_type, outbox_is_empty, published

# As long as a test may hold the service up inside a transaction.
PATIENT = 60.0


async def outbox_ids(host: HostTables) -> set[str]:
    """Return the ids of the events that are committed and not yet known to be published."""
    rows = await host.connection.fetch(statement_text("outbox_pending").replace("{ours}", "true"), 0, 100_000)
    return {event.id for row in rows for event in unpacked(dict(row))}


@pytest.mark.parametrize("away", ["paused", "gone"])
async def test_killed_between_commit_and_publish(
    serve: Serve, host: HostTables, nats: NatsServer, client: Client, gate: Gate, *, away: str
) -> None:
    """Events of a reclaim whose service died before it could publish come from the next service, each once."""
    service = await serve(lock_timeout=PATIENT)
    # However late it is heard, no sweep takes it for stale before.
    await host.worker("A", silent_for=-60)
    workflows = await host.workflows("A", count=30)
    await gate.close_before("UPDATE ON workflow_execution", f"NEW.id = '{workflows[0]}'")
    async with beating(client, ["A"]):
        pass
    # The lapse is decided while NATS is there, the transaction commits when it is not.
    await gate.reached()
    if away == "paused":
        nats.pause()
    else:
        nats.kill()
    try:
        await gate.open()
        await eventually(lambda: host.count("PENDING"), lambda count: count == len(workflows))
        committed = await outbox_ids(host)
        assert len(committed) == len(workflows) + 1
        if away == "gone":
            # It has tried, and could not.
            await service.logged("relay_stopped")
        service.signal(signal.SIGKILL)
        await service.end()
        assert await outbox_ids(host) == committed
    finally:
        if away == "paused":
            nats.resume()
        else:
            await nats.start()

    await serve()
    await outbox_is_empty(host)

    events = await published(client)
    assert sorted(event["id"] for event in events) == sorted(committed)
    assert sorted(event["subject"] for event in of_type(events, "workflow.reclaimed")) == sorted(workflows)
    assert [event["subject"] for event in of_type(events, "worker.expired")] == ["A"]


async def test_killed_between_publish_and_clear(serve: Serve, host: HostTables, client: Client, gate: Gate) -> None:
    """Events that the stream has and the outbox was not yet rid of are not in the stream twice."""
    service = await serve(lock_timeout=PATIENT)
    # However late it is heard, no sweep takes it for stale before.
    await host.worker("A", silent_for=-60)
    workflows = await host.workflows("A", count=30)
    await gate.close_before("DELETE ON liveness.outbox")
    async with beating(client, ["A"]):
        pass
    await gate.reached()
    committed = await outbox_ids(host)
    acknowledged = await published(client)
    assert committed >= {event["id"] for event in acknowledged}
    assert acknowledged
    service.signal(signal.SIGKILL)
    await service.end()
    await gate.open()
    # The transaction that nobody commits any more is rolled back.
    assert await outbox_ids(host) == committed

    await serve()
    await outbox_is_empty(host)

    events = await published(client)
    assert sorted(event["id"] for event in events) == sorted(committed)
    assert sorted(event["subject"] for event in of_type(events, "workflow.reclaimed")) == sorted(workflows)


async def test_killed_in_the_middle_of_a_large_reclaim(
    serve: Serve, host: HostTables, client: Client, gate: Gate
) -> None:
    """A reclaim of many chunks whose service died between two of them is finished by the next, each row once."""
    service = await serve(reclaim_chunk=50, lock_timeout=PATIENT)
    # However late it is heard, no sweep takes it for stale before.
    await host.worker("A", silent_for=-60)
    workflows = sorted(await host.workflows("A", count=2_000))
    await gate.close_before("UPDATE ON workflow_execution", f"NEW.id = '{workflows[1_000]}'")
    async with beating(client, ["A"]):
        pass
    await gate.reached()
    service.signal(signal.SIGKILL)
    await service.end()
    # Twenty chunks are done, the next is not.
    done = {str(row["id"]) for row in await host.connection.fetch("SELECT id FROM liveness.reclaim")}
    assert done == set(workflows[:1_000])
    await gate.open()

    await serve(reclaim_chunk=50)
    await eventually(lambda: host.count("PENDING"), lambda count: count == len(workflows))
    await outbox_is_empty(host)

    # Once in the host's table, once in the history, once in the news; and one life that ended, once.
    versions = "SELECT version, count(*) FROM workflow_execution WHERE worker_id IS NULL GROUP BY version"
    assert [tuple(row) for row in await host.connection.fetch(versions)] == [(1, 2_000)]
    history = await host.connection.fetch("SELECT id, reclaim_count, epoch FROM liveness.reclaim ORDER BY id")
    assert [row["id"] for row in history] == workflows
    assert {row["reclaim_count"] for row in history} == {1}
    assert len({row["epoch"] for row in history}) == 1
    events = await published(client)
    assert sorted(event["subject"] for event in of_type(events, "workflow.reclaimed")) == workflows
    assert len({event["id"] for event in events}) == len(events) == 2_001
