from typing import Any

from nats.aio.client import Client

from tests.conftest import HostTables

from .conftest import Liveness, Serve, beating, eventually
from .told import of_type, outbox_is_empty, published

WEEK = 7 * 24 * 3600.0
# Long enough that a pause of this test's own heartbeats on a busy machine is no silence.
TIMEOUT = 3

DEAD = [f"dead-{number}" for number in range(1000)]
KNOWN = [f"host.{number}.example" for number in range(50)]
UNKNOWN = [f"unknown-{number}" for number in range(5)]
MARKED_OFFLINE = [f"offline-{number}" for number in range(5)]
LIVING = [*KNOWN, *UNKNOWN, *MARKED_OFFLINE]

WORKERS = (
    "INSERT INTO worker (worker_name, status, last_heartbeat_at)"
    " SELECT name, $2, now() - make_interval(secs => $3) FROM unnest($1::text[]) AS name"
)
WORKFLOWS = (
    "INSERT INTO workflow_execution (worker_id, status, updated_at)"
    " SELECT name, 'RUNNING', now() - make_interval(secs => $2) FROM unnest($1::text[]) AS name, generate_series(1, 2)"
)
TASKS = (
    "INSERT INTO task_execution (worker_id, status, updated_at)"
    " SELECT name, 'RUNNING', now() - make_interval(secs => $2) FROM unnest($1::text[]) AS name"
)
# xmin: a row that was taken and given back, or only touched, would show.
ROWS = (
    "SELECT id, status, worker_id, version, xmin::text FROM workflow_execution WHERE worker_id = ANY ($1)"
    " UNION ALL SELECT id, status, worker_id, 0, xmin::text FROM task_execution WHERE worker_id = ANY ($1)"
)


async def test_first_start_gives_back_the_deads_work_and_spares_the_living(
    serve: Serve, liveness: Liveness, host: HostTables, client: Client
) -> None:
    """On a neglected database the work of the dead comes back, and nobody who beats loses any."""
    # Nobody has kept the table current: it says the same of the dead and of the living.
    await host.connection.execute(WORKERS, DEAD + KNOWN, "ONLINE", WEEK)
    await host.connection.execute(WORKERS, MARKED_OFFLINE, "OFFLINE", WEEK)
    await host.connection.execute(WORKFLOWS, DEAD + LIVING, WEEK)
    await host.connection.execute(TASKS, DEAD + LIVING, WEEK)

    async def rows() -> Any:
        return set(await host.connection.fetch(ROWS, LIVING))

    before = await rows()
    assert len(before) == 3 * len(LIVING)

    async with beating(client, LIVING):
        await serve(heartbeat_timeout=TIMEOUT, workflow_stuck_timeout=TIMEOUT)
        await eventually(lambda: host.count("PENDING"), lambda count: count >= 2 * len(DEAD))
        await outbox_is_empty(host)
        # Everybody who was listened for in vain is settled now: one more look takes nobody.
        swept = (await liveness("sweep", "--json", heartbeat_timeout=TIMEOUT)).answer
        status = (await liveness("status", "--json", "--limit", "500", heartbeat_timeout=TIMEOUT)).answer
    assert (swept["ended"], swept["stale"], swept["orphaned"], swept["too_early"]) == (0, [], [], [])
    assert {worker["worker"] for worker in status["workers"]} == set(LIVING)
    assert {worker["state"] for worker in status["workers"]} == {"live"}

    assert await rows() == before
    pending = "SELECT count(*) FROM {} WHERE status = 'PENDING' AND worker_id IS NULL"
    assert await host.connection.fetchval(pending.format("workflow_execution")) == 2 * len(DEAD)
    assert await host.connection.fetchval(pending.format("task_execution")) == len(DEAD)
    offline = await host.connection.fetch("SELECT worker_name FROM worker WHERE status = 'OFFLINE'")
    # What somebody else has marked is not ours to set back.
    assert {row["worker_name"] for row in offline} == {*DEAD, *MARKED_OFFLINE}

    events = await published(client)
    for kind, count in (("workflow.reclaimed", 2), ("task.reclaimed", 1), ("worker.expired", 1)):
        told = of_type(events, kind)
        assert len({event["subject"] for event in told}) == len(told) == count * len(DEAD)
        former = {event["data"]["worker" if kind == "worker.expired" else "former_worker"] for event in told}
        assert former == set(DEAD)
    assert len(events) == 4 * len(DEAD)
