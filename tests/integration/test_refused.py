"""A row that its table's own constraints refuse to put back is left, told, and holds up nobody."""

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

from liveness.checks import CHECKS, Of, check_all
from liveness.finish import Finish
from liveness.refused import Refused
from liveness.settings import Settings
from liveness.store import Life, Store, Walk, pause, resume
from liveness.verdicts import Outcome
from tests.conftest import HostTables
from tests.integration.conftest import Grant, case

POISON = "ALTER TABLE workflow_execution ADD CONSTRAINT no_poison CHECK (kind <> 'poison' OR worker_id IS NOT NULL)"
TRIGGER = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN IF OLD.kind = 'poison' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END
    $$;
    CREATE %s ON workflow_execution %s FOR EACH ROW EXECUTE FUNCTION refuse()
"""
REFUSES = {
    "check": POISON,
    "trigger": TRIGGER % ("TRIGGER refuses BEFORE UPDATE", ""),
    "deferred": TRIGGER % ("CONSTRAINT TRIGGER refuses AFTER UPDATE", "DEFERRABLE INITIALLY DEFERRED"),
}


@pytest.fixture
def finish(store: Store) -> Finish:
    """The duty that puts back what is left."""
    return Finish(store, lambda: 0.0)


@pytest.fixture
async def refused(host: HostTables, store: Store, grant: Grant, finish: Finish) -> str:
    """A row whose table has refused to put it back when the life of `w1`, which held it, was over."""
    (row,) = await host.workflows("w1")
    await host.connection.execute(POISON)
    await poison(host, row)
    await store.reclaims.settle([case("w1", await grant("w1"))])
    await finish.run_once()
    return row


async def poison(host: HostTables, *ids: str) -> None:
    """Make rows such that their table refuses to put them back."""
    await host.connection.execute(
        "UPDATE workflow_execution SET kind = 'poison' WHERE id = ANY ($1::text[]::uuid[])", ids
    )


async def due(host: HostTables) -> None:
    """Let what was refused have waited long enough."""
    await host.connection.execute("UPDATE liveness.remainder SET retry_at = now() WHERE refused IS NOT NULL")


@pytest.mark.parametrize("statement", REFUSES.values(), ids=REFUSES)
async def test_all_but_the_refused_rows_go_back(
    host: HostTables, store: Store, grant: Grant, finish: Finish, statement: str
) -> None:
    """The life is over and finished, its worker OFFLINE, every other row PENDING; each refused row is told once."""
    await host.worker("w1")
    rows = await host.workflows("w1", 40)
    await host.tasks("w1", 3)
    await host.connection.execute(statement)
    await poison(host, *rows[7:9], rows[30])
    epoch = await grant("w1")

    (verdict,) = await store.reclaims.settle([case("w1", epoch)])
    with capture_logs() as logs:
        done = await finish.run_once()

    assert verdict.outcome is Outcome.ENDED
    assert (done.items, done.unfinished) == (40, 0)
    assert await host.count("PENDING") == 37
    assert await host.worker_status("w1") == ["OFFLINE"]
    told = [line for line in logs if line["event"] == "row_refused"]
    assert {line["id"] for line in told} == {*rows[7:9], rows[30]}
    assert len(told) == 3
    assert all(
        line["worker"] == "w1" and ("not this one" in line["cause"] or "no_poison" in line["cause"]) for line in told
    )
    types = [kind for kind, _ in await host.outbox()]
    assert types.count("workflow.reclaimed") == 37
    assert types.count("task.reclaimed") == 3
    with capture_logs() as logs:
        await finish.run_once()
    assert logs == []
    tallies = store.reclaims.tallies
    assert tallies.refused == {"workflow": 3}
    assert tallies.items == {("workflow", "lapsed", "act"): 37, ("task", "lapsed", "act"): 3}


async def test_what_is_said_of_a_refused_row_shows_nothing_of_it(
    host: HostTables, store: Store, grant: Grant, finish: Finish
) -> None:
    """Neither the log nor what is kept, and shown by commands: Postgres' DETAIL has the whole row."""
    (row,) = await host.workflows("w1")
    await host.connection.execute("UPDATE workflow_execution SET queue = 'a secret'")
    await host.connection.execute(POISON)
    await poison(host, row)
    await store.reclaims.settle([case("w1", await grant("w1"))])

    with capture_logs() as logs:
        await finish.run_once()

    kept = await host.connection.fetchval("SELECT refused FROM liveness.remainder")
    assert "no_poison" in kept
    assert "secret" not in kept + str(logs)


async def test_what_an_older_replica_took_for_a_refusal_goes_back_when_the_pause_is_over(
    host: HostTables, store: Store, refused: str
) -> None:
    """One that knows of no pause writes it down as what the table has against the row, which waits longer for it."""
    await host.connection.execute("ALTER TABLE workflow_execution DROP CONSTRAINT no_poison")
    await pause(store.database, by="ops", why="why not", seconds=None)
    with pytest.raises(asyncpg.PostgresError) as caught:
        await host.connection.execute(
            "INSERT INTO liveness.reclaim (work, id, worker, epoch, reclaim_count) VALUES ('workflow', $1, 'w1', 1, 1)",
            refused,
        )
    await resume(store.database, by="ops")
    cause = f"{type(caught.value).__name__}: {caught.value}"
    await host.connection.execute("UPDATE liveness.remainder SET refused = $1", cause)

    assert await Refused(store).run_once() == 1


async def test_what_the_next_life_has_claimed_is_not_told_to_be_refused(
    host: HostTables, store: Store, grant: Grant, refused: str
) -> None:
    """Mended by hand, and claimed anew under the same name before it was tried again: that life is not over."""
    answer = await store.history.of_work(refused, 20)
    assert answer.pieces[0].row is not None
    assert "no_poison" in (answer.pieces[0].row.refused or "")

    await grant("w1")
    await host.connection.execute("UPDATE workflow_execution SET kind = 'invoice', version = version + 1")
    answer = await store.history.of_work(refused, 20)

    assert answer.pieces[0].row is not None
    assert (answer.pieces[0].row.refused, answer.pieces[0].row.fixed) == (None, False)


async def test_a_refused_row_is_tried_again_and_goes_back_when_it_is_mended(
    host: HostTables, store: Store, grant: Grant, finish: Finish
) -> None:
    """Later each time, and nothing of it is told twice."""
    (row,) = await host.workflows("w1")
    await host.connection.execute(POISON)
    await poison(host, row)
    epoch = await grant("w1")
    await store.reclaims.settle([case("w1", epoch)])
    await finish.run_once()
    again = Refused(store)

    assert await again.run_once() == 0
    waits = []
    for _ in range(3):
        await due(host)
        assert await again.run_once() == 0
        waits.append(await host.connection.fetchval("SELECT retry_after FROM liveness.remainder"))
    assert waits == [20, 40, 80]
    await host.connection.execute("ALTER TABLE workflow_execution DROP CONSTRAINT no_poison")
    await due(host)

    assert await again.run_once() == 1
    assert await host.state(row) == ("PENDING", None)
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.remainder") == 0
    assert ("workflow.reclaimed", row) in await host.outbox()
    assert store.reclaims.tallies.items == {("workflow", "lapsed", "act"): 1}


async def test_rows_of_tables_that_are_described_no_more_stand_before_nobody(
    host: HostTables, store: Store, refused: str
) -> None:
    """However many were left of them, and however long ago."""
    await host.connection.execute(
        "INSERT INTO liveness.remainder (worker, epoch, work, id, mark, refused, retry_at, retry_after)"
        " SELECT 'w1', 1, 'former', n::text, '1', 'no', '-infinity', 600 FROM generate_series(1, 1000) AS n"
    )
    await host.connection.execute("ALTER TABLE workflow_execution DROP CONSTRAINT no_poison")
    await host.connection.execute("UPDATE liveness.remainder SET retry_at = now() WHERE work = 'workflow'")

    assert await Refused(store).run_once() == 1
    assert await host.state(refused) == ("PENDING", None)


async def test_a_new_life_of_the_name_does_not_wait_and_is_not_taken_from(
    host: HostTables, store: Store, grant: Grant, finish: Finish
) -> None:
    """What is left stays the former life's, whoever ends meanwhile; what the new one has touched is its own."""
    left, touched = await host.workflows("w1", 2)
    await host.connection.execute(POISON)
    await poison(host, left, touched)
    await store.reclaims.settle([case("w1", await grant("w1"))])
    assert await store.reclaims.owing(["w1"]) == {"w1"}
    await finish.run_once()

    assert await store.reclaims.owing(["w1"]) == set()
    assert await store.host.holding({"w1": ("b", 0.0)}) == {}
    epoch = await grant("w1", incarnation="b")
    (claimed,) = await host.workflows("w1")
    await host.connection.execute("UPDATE workflow_execution SET version = version + 1 WHERE id = $1::uuid", touched)
    await host.connection.execute("ALTER TABLE workflow_execution DROP CONSTRAINT no_poison")
    await due(host)

    assert await Refused(store).run_once() == 2
    assert await host.state(left) == ("PENDING", None)
    assert await host.state(touched) == ("RUNNING", "w1")
    assert await host.state(claimed) == ("RUNNING", "w1")
    (verdict,) = await store.reclaims.settle([case("w1", epoch)])
    assert verdict.items == {"workflow": 2}


async def test_many_refused_rows_take_bounded_transactions(
    host: HostTables, stores: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of few tries and short; between any two, what was found stays found, and it comes to an end."""
    store: Store = await stores(reclaim_chunk=16)
    rows = await host.workflows("w1", 200)
    await host.connection.execute(POISON)
    await poison(host, *rows[:120])
    epoch = (await store.epochs.grant([Life("w1", None, None, 10.0)])).epochs["w1"]
    await store.reclaims.settle([case("w1", epoch)])
    finish, transactions = Finish(store, lambda: 0.0), 0
    finish_apart = store.reclaims.finish_apart

    async def counted(walk: Walk, worker: str) -> None:
        nonlocal transactions
        transactions += 1
        await finish_apart(walk, worker)

    monkeypatch.setattr(store.reclaims, "finish_apart", counted)

    done = await finish.run_once()

    assert (done.items, done.unfinished) == (80, 0)
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.remainder WHERE refused IS NOT NULL") == 120
    assert transactions > 3


async def test_no_row_is_to_blame_for_a_statement_that_is_wrong(host: HostTables, stores: Callable[..., Any]) -> None:
    """The host has renamed a column under us: the life waits as a whole, and no row is marked."""
    store: Store = await stores(reclaim_chunk=1)
    await host.workflows("w1", 3)
    epoch = (await store.epochs.grant([Life("w1", None, None, 10.0)])).epochs["w1"]
    await store.reclaims.settle([case("w1", epoch)])
    await host.connection.execute("ALTER TABLE workflow_execution RENAME COLUMN version TO versions")

    with capture_logs() as logs:
        done = await Finish(store, lambda: 0.0).run_once()

    assert done.unfinished == 1
    assert [line["event"] for line in logs if line["log_level"] == "error"] == ["reclaim_refused"]
    assert await host.connection.fetchval("SELECT count(*) FROM liveness.remainder WHERE refused IS NOT NULL") == 0
    await host.connection.execute("ALTER TABLE workflow_execution RENAME COLUMN versions TO version")
    assert (await Finish(store, lambda: 0.0).run_once()).items == 2


async def test_what_a_trigger_waits_for_is_left_to_the_next_pass_and_refused_rows_are_not(
    dsn: str, host: HostTables, store: Store, grant: Grant, finish: Finish
) -> None:
    """A row that somebody else's lock keeps is not refused: it goes back when that is over."""
    rows = await host.workflows("w1", 4)
    await host.connection.execute(POISON)
    await host.connection.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN IF OLD.kind = 'held' THEN PERFORM pg_advisory_xact_lock(7); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER waits BEFORE UPDATE ON workflow_execution FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    await poison(host, rows[0])
    await host.connection.execute("UPDATE workflow_execution SET kind = 'held' WHERE id = $1::uuid", rows[1])
    await store.reclaims._settle([case("w1", await grant("w1"))], 0)
    other = await asyncpg.connect(dsn)
    await other.execute("SELECT pg_advisory_lock(7)")

    walk = Walk()
    while walk.done < store.reclaims.kinds:
        await store.reclaims.finish_apart(walk, "w1")
    await other.close()

    left = await host.connection.fetch("SELECT id, refused IS NULL AS held FROM liveness.remainder")
    assert {row["id"]: row["held"] for row in left} == {rows[0]: False, rows[1]: True}
    assert await host.count("PENDING") == 2
    assert (await finish.run_once()).unfinished == 0
    assert await host.count("PENDING") == 3
    assert [row["id"] for row in await host.connection.fetch("SELECT id FROM liveness.remainder")] == [rows[0]]


async def test_a_registry_that_refuses_to_mark_keeps_no_work(
    host: HostTables, store: Store, grant: Grant, finish: Finish
) -> None:
    """The rows go back; the mark is tried again, and said."""
    await host.worker("w1")
    rows = await host.workflows("w1", 3)
    await host.connection.execute("ALTER TABLE worker ADD CONSTRAINT stays CHECK (status <> 'OFFLINE')")
    await store.reclaims.settle([case("w1", await grant("w1"))])

    with capture_logs() as logs:
        done = await finish.run_once()

    assert await host.count("PENDING") == len(rows)
    assert (done.unfinished, await host.worker_status("w1")) == (1, ["ONLINE"])
    assert "the registry refuses to mark w1" in next(
        line["cause"] for line in logs if line["event"] == "reclaim_refused"
    )
    await host.connection.execute("ALTER TABLE worker DROP CONSTRAINT stays")
    assert (await Finish(store, lambda: 0.0).run_once()).unfinished == 0
    assert await host.worker_status("w1") == ["OFFLINE"]


async def test_refused_rows_are_shown(settings: Callable[..., Settings], refused: str) -> None:
    """`liveness check` names each, with its worker and the cause."""
    findings = await check_all(settings(), 5.0, checks=[check for check in CHECKS if check[1] is Of.POSTGRES])

    (finding,) = [finding for finding in findings if finding.check == "refused"]
    assert finding.about == f"public.workflow_execution workflow {refused}"
    assert "no_poison" in finding.says
    assert finding.why.startswith("w1, whose it was, is over")
