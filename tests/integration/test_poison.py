"""A name or row that Postgres refuses holds up nobody else."""

from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from liveness.expiry import Expiry
from liveness.grants import Grants
from liveness.hearing import Hearing
from liveness.leases import LeaseTable
from liveness.messages import Heartbeat
from liveness.probes import Probes
from liveness.settings import Settings
from liveness.store import Store
from liveness.storms import Storms
from liveness.wakes import Wakes
from tests.conftest import HostTables
from tests.integration.conftest import standing


@pytest.fixture
def duties(store: Store, settings: Callable[..., Settings]) -> Any:
    """Grants and expiry over one book, with nobody to be told."""

    async def publish(_subject: str, _payload: bytes) -> bool:
        return True

    clock = standing(store)
    book, hearing = LeaseTable(10.0), Hearing(0.0, max_gap=0.5)
    hearing.start(0.0)
    grants = Grants(book=book, hearing=hearing, store=store, settings=settings(), publish=publish, clock=clock)
    expiry = Expiry(
        chunk=2_000,
        book=book,
        hearing=hearing,
        storms=Storms(max_hold=600.0, shuffle=lambda _: None),
        probes=Probes(book=book, ask=lambda *_: False, on_answer=lambda *_: None),
        store=store,
        clock=clock,
        wakes=Wakes(),
    )
    return book, hearing, grants, expiry


async def test_a_row_that_its_table_refuses_to_put_back_holds_up_no_end(
    host: HostTables, store: Store, duties: Any
) -> None:
    """All lives of the batch end, that of the refused row, too; what is left of it is left to be finished."""
    book, hearing, grants, expiry = duties
    await host.connection.execute(
        "ALTER TABLE workflow_execution ADD CHECK (kind <> 'poison' OR worker_id IS NOT NULL)"
    )
    for number in range(20):
        book.beat(f"w{number}", 0.0, Heartbeat())
        await host.workflows(f"w{number}")
    await host.connection.execute("UPDATE workflow_execution SET kind = 'poison' WHERE worker_id = 'w7'")
    await grants.run_once()
    hearing.now = 10.0

    done = await expiry.run_once()

    assert (done.ended, done.refused) == (20, 0)
    assert not book.endings
    assert await host.count("RUNNING") == await host.count("RUNNING", "w7") == 1
    assert await store.reclaims.unfinished() == ["w7"]


async def test_a_name_that_postgres_refuses_holds_up_no_grant(host: HostTables, duties: Any) -> None:
    """Twenty lives get their epochs, the refused one waits, and the round ends."""
    book, _, grants, _ = duties
    await host.connection.execute("ALTER TABLE liveness.epoch ADD CHECK (worker <> 'w7')")
    for number in range(20):
        book.beat(f"w{number}", 0.0, Heartbeat())

    done = await grants.run_once()

    assert done.granted == 19
    assert list(book.wanting) == ["w7"]


@pytest.mark.parametrize(
    "trigger",
    [
        "TRIGGER waits BEFORE UPDATE ON workflow_execution",
        "CONSTRAINT TRIGGER waits AFTER UPDATE ON workflow_execution DEFERRABLE INITIALLY DEFERRED",
    ],
)
async def test_a_row_whose_trigger_waits_for_a_lock_holds_up_only_its_worker(
    dsn: str, host: HostTables, duties: Any, trigger: str
) -> None:
    """The host has locked what its own trigger needs: the others go back, and nobody waits until that is over."""
    book, hearing, grants, expiry = duties
    await host.connection.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN IF OLD.kind = 'held' THEN PERFORM pg_advisory_xact_lock(7); END IF; RETURN NEW; END $$;"
        f"CREATE {trigger} FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    for number in range(8):
        book.beat(f"w{number}", 0.0, Heartbeat())
        await host.workflows(f"w{number}")
    await host.connection.execute("UPDATE workflow_execution SET kind = 'held' WHERE worker_id = 'w3'")
    other = await asyncpg.connect(dsn)
    await other.execute("SELECT pg_advisory_lock(7)")
    await grants.run_once()
    hearing.now = 10.0

    done = await expiry.run_once()
    await other.close()

    assert (done.ended, done.refused) == (7, 1)
    assert await host.count("RUNNING", "w3") == 1
