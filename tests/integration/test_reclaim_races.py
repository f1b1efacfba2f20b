"""The races of a reclaim, each forced: what happens between belief and UPDATE."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from liveness.errors import DatabaseAwayError
from liveness.store import Progress, Store
from liveness.verdicts import Outcome
from tests.conftest import SOON, HostTables, look_again
from tests.integration.conftest import Grant, case, finish_chunk


async def test_a_workflow_that_completes_between_lapse_and_update_stays_completed(
    dsn: str, host: HostTables, store: Store, grant: Grant
) -> None:
    """A row that the worker completes while the reclaim is under way is neither put back nor told of."""
    epoch = await grant("w1")
    (completing,) = await host.workflows("w1")
    (dead,) = await host.workflows("w1")
    worker = await asyncpg.connect(dsn)
    finish = worker.transaction()
    await finish.start()
    # The completion is written and not yet committed: the reclaim's snapshot still shows RUNNING.
    await worker.execute("UPDATE workflow_execution SET status = 'COMPLETED' WHERE id = $1::uuid", completing)

    verdicts = await store.reclaims.settle([case("w1", epoch)])
    await finish.commit()
    await worker.close()
    await finish_chunk(store, Progress())

    assert [verdict.outcome for verdict in verdicts] == [Outcome.ENDED]
    assert await host.state(completing) == ("COMPLETED", "w1")
    assert await host.state(dead) == ("PENDING", None)
    assert ("workflow.reclaimed", completing) not in await host.outbox()
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.remainder") == 0


async def test_a_completion_that_rolls_back_is_put_back_on_the_next_pass(
    dsn: str, host: HostTables, store: Store, grant: Grant
) -> None:
    """A row that somebody held locked is not forgotten: the next pass takes it."""
    epoch = await grant("w1")
    (held,) = await host.workflows("w1")
    worker = await asyncpg.connect(dsn)
    finish = worker.transaction()
    await finish.start()
    await worker.execute("UPDATE workflow_execution SET status = 'COMPLETED' WHERE id = $1::uuid", held)
    await store.reclaims.settle([case("w1", epoch)])
    await finish.rollback()
    await worker.close()
    assert await host.state(held) == ("RUNNING", "w1")

    progress = Progress()
    await finish_chunk(store, progress)

    assert progress.items == 1
    assert await host.state(held) == ("PENDING", None)
    assert await host.outbox() == [("worker.expired", "w1"), ("workflow.reclaimed", held)]


async def test_a_row_that_stays_locked_is_not_given_up(dsn: str, host: HostTables, store: Store, grant: Grant) -> None:
    """However many passes find it locked, the first that does not takes it."""
    epoch = await grant("w1")
    (held,) = await host.workflows("w1")
    worker = await asyncpg.connect(dsn)
    transaction = worker.transaction()
    await transaction.start()
    await worker.execute("SELECT FROM workflow_execution FOR UPDATE")
    await store.reclaims.settle([case("w1", epoch)])
    for _ in range(3):
        progress = Progress()
        await finish_chunk(store, progress)
        assert (progress.items, progress.looked_at, progress.unfinished) == (0, 1, 1)
    await transaction.rollback()
    await worker.close()

    await finish_chunk(store, Progress())

    assert await host.state(held) == ("PENDING", None)


async def test_an_epoch_ends_once_whoever_reports_it(
    host: HostTables, stores: Callable[..., Any], grant: Grant
) -> None:
    """Eight replicas and sweeps that offer the same epoch at once end it once; the others learn that it was over."""
    epoch = await grant("w1")
    await host.workflows("w1", 5)
    replicas = [await stores() for _ in range(4)]

    verdicts = await asyncio.gather(
        *(replica.reclaims.settle([case("w1", epoch)]) for replica in replicas for _ in range(2))
    )

    outcomes = [verdict.outcome for answer in verdicts for verdict in answer]
    assert outcomes.count(Outcome.ENDED) == 1
    assert outcomes.count(Outcome.OVER) + outcomes.count(Outcome.HELD) == 7
    assert [kind for kind, _ in await host.outbox()] == ["worker.expired"] + ["workflow.reclaimed"] * 5
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.expiration") == 1


async def test_no_chunk_reaches_into_the_next_life(host: HostTables, stores: Callable[..., Any], grant: Grant) -> None:
    """Rows that the name's next life holds are left alone by the chunks of the former life's reclaim.

    Of the rows fixed for the former life, one was completed and claimed again by the next life under the same name: it
    looks the same, RUNNING and owned by that name.
    """
    store = await stores(reclaim_chunk=2)
    epoch = await grant("w1")
    old = sorted(await host.workflows("w1", 5))
    await store.reclaims.settle([case("w1", epoch)])
    assert await host.count("PENDING") == 2
    next_epoch = await grant("w1")
    again, *rest = old[2:]
    await host.connection.execute(
        "UPDATE workflow_execution SET status = 'RUNNING', worker_id = 'w1', version = version + 1 WHERE id = $1::uuid",
        again,
    )
    (new,) = await host.workflows("w1")

    progress = Progress()
    while True:
        await finish_chunk(store, progress)
        if not progress.looked_at:
            break

    assert next_epoch > epoch
    assert await host.state(again) == ("RUNNING", "w1")
    assert await host.state(new) == ("RUNNING", "w1")
    assert [await host.state(workflow) for workflow in rest] == [("PENDING", None)] * 2
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.remainder") == 0
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.expiration WHERE finished_at IS NULL") == 0


async def test_no_epoch_is_granted_before_the_former_lifes_rows_are_fixed(
    dsn: str, host: HostTables, grant: Grant
) -> None:
    """A grant waits for the transaction that ends the name's former epoch."""
    epoch = await grant("w1")
    ending = await asyncpg.connect(dsn)
    transaction = ending.transaction()
    await transaction.start()
    await ending.execute("UPDATE liveness.epoch SET ended_at = now() WHERE worker = 'w1' AND epoch = $1", epoch)

    granting = asyncio.create_task(grant("w1"))
    async with asyncio.timeout(SOON):
        while not await host.connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND query LIKE '%INSERT INTO liveness.epoch%'"
        ):
            assert not granting.done()
            await look_again()
    await transaction.commit()
    await ending.close()

    assert await granting > epoch


async def test_a_grant_of_the_same_life_returns_the_same_epoch(grant: Grant) -> None:
    """A grant whose answer was lost may be repeated."""
    assert await grant("w1") == await grant("w1")


async def test_work_claimed_by_a_worker_that_is_offline_is_an_orphan_for_the_sweep(
    host: HostTables, store: Store, grant: Grant
) -> None:
    """A row claimed after the reclaim's snapshot is not that life's; it is found as an orphan."""
    await host.worker("w1")
    epoch = await grant("w1")
    await host.workflows("w1")
    await store.reclaims.settle([case("w1", epoch)])
    (late,) = await host.workflows("w1", untouched_for=500.0)

    await finish_chunk(store, Progress())
    found = await store.host.orphaned(120.0)

    assert await host.state(late) == ("RUNNING", "w1")
    assert [orphan.worker for orphan in found] == ["w1"]


async def test_a_host_that_locks_in_the_opposite_order_never_fails(
    dsn: str, host: HostTables, store: Store, grant: Grant
) -> None:
    """A host that locks the worker's row first and its work in descending order never waits for us in a circle.

    Two hundred host transactions against as many reclaims of the same name: the host gets no deadlock and no timeout.
    """
    await host.worker("w1")
    await host.workflows("w1", 40)
    other = await asyncpg.connect(dsn)
    await other.execute("SET deadlock_timeout = '10ms'")

    async def hosts_work() -> int:
        for _ in range(200):
            async with other.transaction():
                await other.execute("UPDATE worker SET last_heartbeat_at = now() WHERE worker_name = 'w1'")
                for row in await other.fetch("SELECT id FROM workflow_execution ORDER BY id DESC LIMIT 5 FOR UPDATE"):
                    await other.execute("UPDATE workflow_execution SET updated_at = now() WHERE id = $1", row["id"])
            await other.execute(
                "UPDATE workflow_execution SET status = 'RUNNING', worker_id = 'w1' WHERE status = 'PENDING'"
            )
        return 200

    working = asyncio.create_task(hosts_work())
    rounds = 0
    while not working.done():
        await store.reclaims.settle([case("w1", await grant("w1"))])
        await finish_chunk(store, Progress())
        rounds += 1

    assert await working == 200
    assert rounds > 1
    await other.close()


async def test_a_row_that_the_host_locks_costs_us_no_wait(
    dsn: str, host: HostTables, store: Store, grant: Grant
) -> None:
    """While the host holds the worker's row, its work goes back all the same; the row is marked OFFLINE afterwards."""
    await host.worker("w1")
    (workflow,) = await host.workflows("w1")
    epoch = await grant("w1")
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM worker WHERE worker_name = 'w1' FOR UPDATE")

    async with asyncio.timeout(SOON):
        await store.reclaims.settle([case("w1", epoch)])
    assert await host.state(workflow) == ("PENDING", None)
    assert await host.worker_status("w1") == ["ONLINE"]
    await transaction.rollback()
    await other.close()
    await finish_chunk(store, Progress())

    assert await host.worker_status("w1") == ["OFFLINE"]
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.expiration WHERE finished_at IS NULL") == 0


async def test_a_name_that_lives_again_is_not_marked_offline_by_its_former_reclaim(
    dsn: str, host: HostTables, store: Store, grant: Grant
) -> None:
    """The late part of a reclaim does not mark the worker's row when the name has begun a new life."""
    await host.worker("w1")
    epoch = await grant("w1")
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT FROM worker WHERE worker_name = 'w1' FOR UPDATE")
    await store.reclaims.settle([case("w1", epoch)])
    await transaction.rollback()
    await other.close()
    await grant("w1")

    await finish_chunk(store, Progress())

    assert await host.worker_status("w1") == ["ONLINE"]


async def test_a_table_that_is_locked_is_not_waited_for(
    dsn: str, host: HostTables, stores: Callable[..., Any], grant: Grant
) -> None:
    """A host that migrates its table finds our transaction gone and nothing half done."""
    store = await stores(lock_timeout=0.05)
    epoch = await grant("w1")
    (workflow,) = await host.workflows("w1")
    other = await asyncpg.connect(dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("LOCK TABLE workflow_execution IN ACCESS EXCLUSIVE MODE")

    with pytest.raises(DatabaseAwayError, match="lock timeout"):
        await store.reclaims.settle([case("w1", epoch)])
    await transaction.rollback()
    await other.close()

    assert await host.outbox() == []
    assert await host.state(workflow) == ("RUNNING", "w1")
    verdicts = await store.reclaims.settle([case("w1", epoch)])
    assert verdicts[0].outcome is Outcome.ENDED


@pytest.mark.parametrize("reason", ["released", "died"])
async def test_what_is_claimed_while_a_verdict_waits_is_left_to_whoever_claimed_it(
    host: HostTables, store: Store, grant: Grant, reason: str
) -> None:
    """A process that begins without a hello may claim before it is heard, up to the reclaim's snapshot."""
    epoch = await grant("w1")
    (old,) = await host.workflows("w1", untouched_for=10.0)
    (new,) = await host.workflows("w1")

    await store.reclaims.settle(
        [case("w1", epoch, reason=reason, untouched_for=0.0, told=True, measured_at=time.monotonic() - 5.0)]
    )

    assert await host.state(old) == ("PENDING", None)
    assert await host.state(new) == ("RUNNING", "w1")


async def test_who_is_given_up_and_touches_his_work_meanwhile_loses_it_all_the_same(
    host: HostTables, store: Store, grant: Grant
) -> None:
    """He is told that he was superseded and drops it; if it were left, nobody would take it up while he lives."""
    epoch = await grant("w1")
    (old,) = await host.workflows("w1", untouched_for=10.0)
    (touched,) = await host.workflows("w1")

    await store.reclaims.settle([case("w1", epoch, measured_at=time.monotonic() - 5.0)])

    assert await host.state(old) == await host.state(touched) == ("PENDING", None)


@pytest.mark.parametrize(
    ("reason", "state"), [("lapsed", "PENDING"), ("released", "PENDING"), ("restarted", "RUNNING")]
)
async def test_work_of_which_nobody_knows_when_it_was_touched(
    host: HostTables, store: Store, grant: Grant, reason: str, state: str
) -> None:
    """It goes back with the life that holds it, but for a restart: there it may be the new process's."""
    epoch = await grant("w1")
    (workflow,) = await host.workflows("w1")
    await host.connection.execute("ALTER TABLE workflow_execution ALTER COLUMN updated_at DROP NOT NULL")
    await host.connection.execute("UPDATE workflow_execution SET updated_at = NULL")

    bound = None if reason == "lapsed" else 0.0
    await store.reclaims.settle([case("w1", epoch, reason=reason, untouched_for=bound)])

    assert (await host.state(workflow))[0] == state


async def test_a_restored_backup_issues_no_epoch_again(host: HostTables, grant: Grant) -> None:
    """Epochs issued after a backup was made are not issued again when it is restored."""
    before = await grant("w1")
    await host.connection.execute("UPDATE liveness.epoch SET ended_at = now()")
    used_after_the_backup = await grant("w1")

    # The restore: what came after the backup is gone.
    await host.connection.execute("DELETE FROM liveness.epoch WHERE epoch = $1", used_after_the_backup)

    assert await grant("w1") > used_after_the_backup > before
