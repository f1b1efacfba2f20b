import asyncio
import signal
from contextlib import aclosing
from datetime import datetime
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client

import liveness
from liveness.embedded import NatsServer
from tests.conftest import HostTables

from .conftest import Child, Serve, StartWorker, eventually
from .told import of_type, outbox_is_empty, published

# The keys that the contract names, beside the id of the work.
DATA_KEYS = {
    "kind",
    "queue",
    "former_worker",
    "incarnation",
    "epoch",
    "reason",
    "last_heartbeat_at",
    "lapsed_at",
    "reclaimed_at",
    "reclaim_count",
}


async def new_work(host: HostTables, kind: str) -> str:
    """Put one piece of PENDING work into the queue that the workers claim from; return its id."""
    if kind == "workflow":
        return str((await host.workflows(None, status="PENDING"))[0])
    return str(await host.connection.fetchval("INSERT INTO task_execution (queue) VALUES ('mail') RETURNING id::text"))


async def seen(host: HostTables, kind: str, item: str) -> dict[str, Any]:
    """Return the row of a piece of work."""
    table = {"workflow": "workflow_execution", "task": "task_execution"}[kind]
    row = await host.connection.fetchrow(f"SELECT * FROM {table} WHERE id = $1::uuid", item)  # noqa: S608
    assert row is not None
    return dict(row)


async def first_event(nats: NatsServer, kind: str) -> liveness.Event:
    """Subscribe as another service would, and return the first event of that type."""
    async with asyncio.timeout(20), aclosing(liveness.events(nats.url, durable="billing", types=[kind])) as news:
        return await anext(news)


async def die_with_work(worker: Child, item: str) -> None:
    """Let a worker claim a piece of work, and kill it while it works."""
    assert await worker.said("claimed") == item
    worker.signal(signal.SIGKILL)
    assert await worker.end() == -signal.SIGKILL


async def completed_elsewhere(start_worker: StartWorker, item: str, kind: str = "workflow") -> None:
    """Start worker B and wait until it has claimed and completed the work."""
    worker = await start_worker("B", "complete", kind)
    assert await worker.said("claimed") == item
    assert await worker.said("completed") == item


@pytest.mark.parametrize("kind", ["workflow", "task"])
async def test_killed_workers_work_is_completed_by_another_worker(
    serve: Serve, start_worker: StartWorker, host: HostTables, nats: NatsServer, client: Client, kind: str
) -> None:
    """Work of a worker that was killed is PENDING again, told of once, and completed by one that waits for it."""
    item = await new_work(host, kind)
    await serve()
    worker = await start_worker("A", "stuck", kind)
    assert await worker.said("claimed") == item
    claimed = await seen(host, kind, item)
    assert (claimed["status"], claimed["worker_id"]) == ("RUNNING", "A")
    waiting = await start_worker("B", "complete", kind)

    await die_with_work(worker, item)

    assert await waiting.said("completed") == item
    row = await seen(host, kind, item)
    assert (row["status"], row["worker_id"]) == ("COMPLETED", "B")
    if kind == "workflow":
        # The reclaim, the claim and the completion.
        assert row["version"] == claimed["version"] + 3
    assert await host.worker_status("A") == ["OFFLINE"]
    assert await host.worker_status("B") == ["ONLINE"]

    event = await first_event(nats, f"{kind}.reclaimed")
    assert event.subject == item
    await outbox_is_empty(host)
    events = await published(client)
    # On a slow machine it is silent for long enough to be suspect before it lapses.
    types = sorted(one["type"] for one in events if one["type"] != "worker.suspected")
    assert types == sorted([f"{kind}.reclaimed", "worker.expired"])
    told = of_type(events, f"{kind}.reclaimed")[0]
    data = told["data"]
    assert data == msgspec.to_builtins(event.data)
    assert set(data) == DATA_KEYS | {f"{kind}_id"}
    assert data[f"{kind}_id"] == item
    assert data["kind"] == ("invoice" if kind == "workflow" else None)
    assert data["queue"] == ("billing" if kind == "workflow" else "mail")
    assert (data["former_worker"], data["reason"], data["reclaim_count"]) == ("A", "lapsed", 1)
    instants = [datetime.fromisoformat(data[key]) for key in ("last_heartbeat_at", "lapsed_at", "reclaimed_at")]
    assert instants == sorted(instants)
    # The ttl that A stated, and not a moment less.
    assert (instants[1] - instants[0]).total_seconds() >= 1 - 0.001
    # And of what a service that has just started owes everybody, three ttls of hearing at most.
    heard = msgspec.json.decode(await host.connection.fetchval("SELECT evidence FROM liveness.expiration"))
    assert 1 - 0.001 <= heard["silent_for"] - heard["overdue"] <= 3 + 0.001


async def test_worker_that_died_while_the_service_was_down(
    serve: Serve, start_worker: StartWorker, host: HostTables, client: Client
) -> None:
    """The work of a worker that died between two runs of the service is put back by the second one."""
    item = await new_work(host, "workflow")
    service = await serve()
    worker = await start_worker("A", "stuck")
    open_lives = "SELECT epoch FROM liveness.epoch WHERE worker = 'A' AND incarnation IS NOT NULL"
    epoch = await eventually(lambda: host.connection.fetchval(open_lives), bool)
    await service.stop()
    await die_with_work(worker, item)
    assert await host.state(item) == ("RUNNING", "A")

    await serve()
    await completed_elsewhere(start_worker, item)

    await outbox_is_empty(host)
    (told,) = of_type(await published(client), "workflow.reclaimed")
    assert (told["subject"], told["data"]["former_worker"], told["data"]["epoch"]) == (item, "A", epoch)
    assert told["data"]["reason"] == "lapsed"
    assert await host.worker_status("A") == ["OFFLINE"]


async def test_orphans(serve: Serve, start_worker: StartWorker, host: HostTables, client: Client) -> None:
    """Work whose owner is OFFLINE already, or has no row at all, is found by the sweep and completed by another."""
    await serve()
    await host.worker("offline", status="OFFLINE", silent_for=3600)
    owners = {(await host.workflows(name, untouched_for=3600))[0]: name for name in ("offline", "unknown")}

    worker = await start_worker("B", "complete")
    for item in owners:
        await worker.said(f"completed {item}")
        assert await host.state(item) == ("COMPLETED", "B")

    await outbox_is_empty(host)
    events = await published(client)
    # Nobody expired: it is not known that they ever lived.
    assert {event["type"] for event in events} == {"workflow.reclaimed"}
    assert {event["data"]["reason"] for event in events} == {"orphaned"}
    assert sorted((event["subject"], event["data"]["former_worker"]) for event in events) == sorted(owners.items())
    assert await host.worker_status("offline") == ["OFFLINE"]
    assert await host.worker_status("unknown") == []
