"""Work that kills its workers: what a reclaim does with it, on a real Postgres."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from liveness.errors import CannotStartError
from liveness.eventdata import EVENT_TYPES
from liveness.store import Life, Store
from liveness.store import database as store_database
from tests.conftest import HostTables
from tests.integration.conftest import case

Stores = Callable[..., Any]


@pytest.fixture
async def aside(stores: Stores) -> Store:
    """A store that sets work aside after two crashes."""
    opened: Store = await stores(crash_budget=2, crash_action="quarantine", quarantine_status="FAILED")
    return opened


async def claim(host: HostTables, worker: str, *workflows: str) -> None:
    """Let `worker` claim these workflows, whatever they were."""
    await host.connection.execute(
        "UPDATE workflow_execution SET status = 'RUNNING', worker_id = $1 WHERE id = ANY ($2::uuid[])",
        worker,
        list(workflows),
    )


async def die(store: Store, worker: str, **fields: Any) -> None:
    """Let a worker that holds something crash, and its work go back."""
    epoch = (await store.epochs.grant([Life(worker, None, None, 10.0)])).epochs[worker]
    await store.reclaims.settle([case(worker, epoch, **({"crash": True} | fields))])


async def events(store: Store, kind: str) -> list[dict[str, Any]]:
    """Return the data of all events of one kind, each checked against its type."""
    found = [event for event in await store.outbox.pending(0, 1_000) if event.type == kind]
    for event in found:
        assert set(msgspec.json.decode(event.data)) == set(EVENT_TYPES[kind].__struct_fields__)
        msgspec.json.decode(event.data, type=EVENT_TYPES[kind])
    return [msgspec.json.decode(event.data) for event in found]


async def went_back(store: Store, worker: str) -> int:
    """Return how much an operator, and `why`, is told to have gone back of the last life."""
    told = (await store.history.of_worker(worker, 1)).worker
    assert told is not None
    (life,) = told.lives
    counted = await store.reclaims.count(worker, life.epoch)
    assert counted == sum((life.gave_back or {}).values())
    return counted


async def test_what_killed_as_often_as_its_budget_is_set_aside(host: HostTables, aside: Store) -> None:
    """It has the operator's status and no owner, and the event tells the story."""
    (workflow,) = await host.workflows("w1")
    await die(aside, "w1")
    await claim(host, "w2", workflow)

    await die(aside, "w2")

    assert await host.state(workflow) == ("FAILED", None)
    assert await aside.reclaims.unfinished() == []
    assert await went_back(aside, "w2") == 0
    (told,) = await events(aside, "workflow.quarantined")
    assert (told["workflow_id"], told["former_worker"]) == (workflow, "w2")
    assert (told["crash_count"], told["crash_budget"], told["reclaim_count"]) == (2, 2, 2)
    assert [(crash["worker"], crash["suspects"]) for crash in told["former_crashes"]] == [("w1", 1)]
    assert len(await events(aside, "workflow.reclaimed")) == 1
    tallies = aside.reclaims.tallies
    assert (tallies.crashing["workflow"], tallies.quarantined["workflow"]) == (1, 1)
    assert tallies.items == {("workflow", "lapsed", "act"): 1}


@pytest.mark.parametrize("reason", ["released", "operator", "orphaned"])
async def test_what_was_wanted_is_no_crash(host: HostTables, aside: Store, reason: str) -> None:
    """However often its workers are released, it goes back."""
    (workflow,) = await host.workflows("w0")
    for number in range(4):
        await claim(host, f"w{number}", workflow)
        await die(aside, f"w{number}", reason=reason, crash=False)

    assert await host.state(workflow) == ("PENDING", None)
    assert await events(aside, "workflow.quarantined") == []


async def test_by_default_it_goes_back_and_is_told_of(host: HostTables, stores: Stores) -> None:
    """The event carries the evidence, at the third crash and at each one after it."""
    store = await stores()
    (workflow,) = await host.workflows("w0")
    for number in range(4):
        await claim(host, f"w{number}", workflow)
        await die(store, f"w{number}")

    assert await host.state(workflow) == ("PENDING", None)
    told = await events(store, "workflow.crashing")
    assert [(one["former_worker"], one["crash_count"]) for one in told] == [("w2", 3), ("w3", 4)]
    assert [crash["worker"] for crash in told[1]["former_crashes"]] == ["w2", "w1", "w0"]
    assert len(await events(store, "workflow.reclaimed")) == 4
    tallies = store.reclaims.tallies
    assert (tallies.crashing["workflow"], tallies.quarantined["workflow"]) == (2, 0)


async def test_a_budget_of_0_is_none(host: HostTables, stores: Stores) -> None:
    """Nothing is counted, told of or set aside."""
    store = await stores(crash_budget=0)
    (workflow,) = await host.workflows("w0")
    for number in range(4):
        await claim(host, f"w{number}", workflow)
        await die(store, f"w{number}")

    assert await events(store, "workflow.crashing") == []


async def test_crashes_are_forgotten_after_the_window(host: HostTables, aside: Store) -> None:
    """One that is older than the window counts against nothing."""
    (workflow,) = await host.workflows("w1")
    await die(aside, "w1")
    await host.connection.execute("UPDATE liveness.reclaim SET reclaimed_at = now() - interval '25 hours'")
    await claim(host, "w2", workflow)

    await die(aside, "w2")

    assert await host.state(workflow) == ("PENDING", None)


async def test_what_ran_beside_it_goes_back(host: HostTables, aside: Store) -> None:
    """At the death that uses the budget up, a suspect with fewer crashes behind it is told of as another suspect."""
    (killer,) = await host.workflows("w1")
    await die(aside, "w1")
    (innocent,) = await host.workflows("w2")
    await claim(host, "w2", killer)

    await die(aside, "w2")

    assert await host.state(killer) == ("FAILED", None)
    assert await host.state(innocent) == ("PENDING", None)
    (told,) = await events(aside, "workflow.quarantined")
    assert (told["suspects"], told["others"]) == (2, [{"id": innocent, "crash_count": 1}])


async def test_of_two_with_as_many_crashes_nobody_can_tell_which(host: HostTables, aside: Store) -> None:
    """Both go back; the next death, when they run apart, tells; and what is explained counts against nobody else."""
    killer, innocent = await host.workflows("w1", 2)
    await die(aside, "w1")
    await claim(host, "w2", killer, innocent)
    await die(aside, "w2")
    assert await host.state(killer) == await host.state(innocent) == ("PENDING", None)
    assert len(await events(aside, "workflow.crashing")) == 2

    await claim(host, "w3", killer)
    await die(aside, "w3")
    await claim(host, "w4", innocent)
    await die(aside, "w4")

    assert await host.state(killer) == ("FAILED", None)
    assert await host.state(innocent) == ("PENDING", None)


async def test_what_always_travels_together_is_set_aside_together(host: HostTables, aside: Store) -> None:
    """With twice the budget, both: they cannot be told apart, and must not kill for ever."""
    pair = await host.workflows("w0", 2)
    for number in range(4):
        await claim(host, f"w{number}", *pair)
        await die(aside, f"w{number}")

    assert [await host.state(one) for one in pair] == [("FAILED", None)] * 2
    assert len(await events(aside, "workflow.quarantined")) == 2


async def test_a_workflow_and_its_task_are_judged_each_by_itself(host: HostTables, aside: Store) -> None:
    """They always run on one worker, and are no rivals."""
    (workflow,) = await host.workflows("w1")
    (task,) = await host.tasks("w1")
    await die(aside, "w1")
    await claim(host, "w2", workflow)
    await host.connection.execute("UPDATE task_execution SET status = 'RUNNING', worker_id = 'w2'")

    await die(aside, "w2")

    assert await host.state(workflow) == ("FAILED", None)
    assert await host.connection.fetchval("SELECT status FROM task_execution WHERE id = $1::uuid", task) == "FAILED"


async def test_what_finished_meanwhile_is_not_set_aside(host: HostTables, aside: Store) -> None:
    """Whoever finished clears itself, though its worker died a moment later."""
    (workflow,) = await host.workflows("w1")
    await die(aside, "w1")
    await claim(host, "w2", workflow)
    await host.connection.execute("UPDATE workflow_execution SET status = 'COMPLETED'")

    await die(aside, "w2")

    assert await host.state(workflow) == ("COMPLETED", "w2")


async def test_a_status_that_the_table_refuses_lets_it_go_back(host: HostTables, stores: Stores) -> None:
    """The check was made after the start: it is told of, and holds up nobody."""
    store = await stores(crash_budget=2, crash_action="quarantine", quarantine_status="FAILED")
    await host.connection.execute("ALTER TABLE workflow_execution ADD CHECK (status <> 'FAILED')")
    workflow, other = await host.workflows("w1", 2)
    await die(store, "w1")
    await claim(host, "w2", workflow)

    await die(store, "w2")

    assert await host.state(workflow) == await host.state(other) == ("PENDING", None)
    assert len(await events(store, "workflow.crashing")) == 1


REFUSES_WITH = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.status = 'FAILED' THEN RAISE EXCEPTION 'not by you' USING ERRCODE = '%s'; END IF;
            RETURN NEW;
        END
    $$;
    CREATE TRIGGER refuses BEFORE UPDATE ON workflow_execution FOR EACH ROW EXECUTE FUNCTION refuse()
"""


@pytest.mark.parametrize("code", ["insufficient_privilege", "undefined_function", "XX777"])
async def test_whatever_the_table_has_against_it_the_life_ends(host: HostTables, aside: Store, code: str) -> None:
    """A trigger that needs a right, or that is broken, or that says something of its own."""
    await host.connection.execute(REFUSES_WITH % code)
    workflow, other = await host.workflows("w1", 2)
    await die(aside, "w1")
    await claim(host, "w2", workflow)

    await die(aside, "w2")

    assert await host.state(workflow) == await host.state(other) == ("PENDING", None)
    assert await aside.reclaims.unfinished() == []


async def test_a_row_that_cannot_be_set_aside_saves_no_other(host: HostTables, aside: Store) -> None:
    """Of workers that died at once, each had a killer: the table refuses one of them."""
    refused, killer = (await host.workflows("w1"))[0], (await host.workflows("w2"))[0]
    await die(aside, "w1")
    await die(aside, "w2")
    await host.connection.execute("ALTER TABLE workflow_execution ADD CHECK (kind <> 'kept' OR status <> 'FAILED')")
    await host.connection.execute("UPDATE workflow_execution SET kind = 'kept' WHERE id = $1::uuid", refused)
    await claim(host, "w1", refused)
    await claim(host, "w2", killer)
    lives = await aside.epochs.grant([Life(worker, None, None, 10.0) for worker in ("w1", "w2")])

    with capture_logs() as logs:
        await aside.reclaims.settle([case(worker, epoch, crash=True) for worker, epoch in lives.epochs.items()])

    assert (await host.state(refused), await host.state(killer)) == (("PENDING", None), ("FAILED", None))
    assert [line["ids"] for line in logs if line["event"] == "quarantine_refused"] == [[refused]]
    assert [told["workflow_id"] for told in await events(aside, "workflow.crashing")] == [refused]


@pytest.mark.parametrize("kind", ["varchar(40)", "said"])
async def test_the_story_is_cut_to_what_its_column_holds(host: HostTables, stores: Stores, kind: str) -> None:
    """Else the trial at the start would pass, and every quarantine fail."""
    await host.connection.execute("CREATE DOMAIN said AS varchar(40)")
    await host.connection.execute(f"ALTER TABLE workflow_execution ADD error {kind}")
    store = await stores(crash_budget=1, crash_action="quarantine", quarantine_status="FAILED")
    (workflow,) = await host.workflows("w1")

    await die(store, "w1")

    assert await host.state(workflow) == ("FAILED", None)
    told = await host.connection.fetchval("SELECT error FROM workflow_execution")
    assert told == "set aside by liveness: 1 worker died within 24 h while they ran this"[:40]


async def test_of_a_life_beyond_a_chunk_the_killer_is_found_all_the_same(host: HostTables, stores: Stores) -> None:
    """It is judged among all that its worker held, wherever it stands in the order."""
    store = await stores(crash_budget=2, crash_action="quarantine", quarantine_status="FAILED", reclaim_chunk=2)
    await host.workflows("w1")
    killer = await host.connection.fetchval(
        "UPDATE workflow_execution SET id = 'ffffffff-ffff-ffff-ffff-ffffffffffff' RETURNING id::text"
    )
    await die(store, "w1")
    await host.workflows("w2", 5)
    await claim(host, "w2", killer)

    await die(store, "w2")

    assert await host.state(killer) == ("FAILED", None)
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.remainder") == 3


async def test_a_reclaim_that_is_being_finished_is_not_waited_for(host: HostTables, aside: Store) -> None:
    """It is a former death, whose row is locked chunk after chunk: the killer's life ends all the same."""
    (killer,) = await host.workflows("w1")
    await die(aside, "w1")
    await claim(host, "w2", killer)
    async with host.connection.transaction():
        await host.connection.execute("SELECT FROM liveness.expiration FOR UPDATE")
        await die(aside, "w2")

    assert await host.state(killer) == ("FAILED", None)
    rows = await host.connection.fetch("SELECT killers IS NOT NULL AS told FROM liveness.expiration ORDER BY worker")
    assert [row["told"] for row in rows] == [False, True]


async def test_a_killer_among_many_takes_no_longer_than_any_reclaim(
    host: HostTables, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the try that is undone has left in our index is not gone through for each row: that would be broken off."""
    store = await stores(crash_budget=2, crash_action="quarantine", quarantine_status="FAILED", reclaim_chunk=10)
    (killer,) = await host.workflows("w1")
    await die(store, "w1")
    await host.workflows("w2", 12_000)
    await claim(host, "w2", killer)
    # A tenth of what it has, and some six times what it takes.
    monkeypatch.setattr(store_database, "PATIENT_SECONDS", 3.0)

    await die(store, "w2")

    assert await host.state(killer) == ("FAILED", None)


async def test_in_mode_observe_nothing_is_judged(host: HostTables, stores: Stores) -> None:
    """What was not put back has crashed nobody by our doing, and is not counted."""
    store = await stores(mode="observe", crash_budget=1, crash_action="quarantine", quarantine_status="FAILED")
    (workflow,) = await host.workflows("w1")

    await die(store, "w1")

    assert await host.state(workflow) == ("RUNNING", "w1")
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.reclaim WHERE crash") == 0


UNCHECKED = "ALTER TABLE workflow_execution DROP CONSTRAINT workflow_execution_status_check"
ENUM = f"""
    {UNCHECKED};
    DROP INDEX workflow_execution_owner_idx, workflow_execution_pending_idx;
    CREATE TYPE progress AS ENUM ('PENDING', 'RUNNING');
    ALTER TABLE workflow_execution ALTER status DROP DEFAULT, ALTER status TYPE progress USING status::progress
"""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("SELECT 1", "workflow_execution_status_check"),
        (f"{UNCHECKED}, ADD CHECK (status <> 'PARKED' OR worker_id IS NOT NULL)", "workflow_execution_check"),
        (f"{UNCHECKED}, ALTER worker_id SET NOT NULL", "null value"),
        (ENUM, "progress"),
    ],
    ids=["check", "check-of-the-owner", "not-null", "enum"],
)
@pytest.mark.parametrize("status", ["RUNNING", "PENDING", None])
async def test_a_status_that_cannot_be_set_is_refused_at_the_start(
    host: HostTables, stores: Stores, change: str, complaint: str, status: str | None
) -> None:
    """One line names the table, the status, what the table said and the fix; nothing has changed.

    Without a row to try it on, only what the type says is known.
    """
    if status is not None:
        await host.workflows("w1", status=status)
    await host.connection.execute(change)
    before = await host.connection.fetch("SELECT * FROM workflow_execution")
    opening = stores(crash_action="quarantine", quarantine_status="PARKED")

    if status is None and complaint != "progress":
        await opening
    else:
        with pytest.raises(CannotStartError, match=f"workflow_execution refuses the status 'PARKED'.*{complaint}"):
            await opening

    assert await host.connection.fetch("SELECT * FROM workflow_execution") == before
