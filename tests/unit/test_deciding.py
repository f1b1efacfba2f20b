"""Small pure decisions: what is offered to Postgres, the order of events, who is restored, what SQL is rendered."""

import pytest

from liveness.expiry import case_of
from liveness.hearing import Hearing
from liveness.lease import Lease
from liveness.leases import LeaseTable
from liveness.relay import in_commit_order
from liveness.restore import distinct
from liveness.store import Life, Pending
from liveness.store.statements import Statements
from liveness.work import WORKFLOWS, Registry, WorkTable, quoted, rendered, work_parts


def event(seq: int, worker: str, transaction: int) -> Pending:
    """An event of the outbox."""
    return Pending(
        seq=seq, id=str(seq), type="t", subject="s", worker=worker, observed=False, transaction_id=transaction, time="",
        data="{}",
    )  # fmt: skip


def test_events_of_one_worker_and_two_transactions_are_not_in_flight_together() -> None:
    """Those of other workers may be."""
    events = [
        event(1, "a", 1),
        event(2, "a", 1),
        event(3, "b", 2),
        event(4, "a", 3),
        event(5, "b", 2),
        event(6, "c", 4),
    ]

    groups = [[one.seq for one in group] for group in in_commit_order(events)]

    assert groups == [[1, 2, 3], [4, 5, 6]]
    assert in_commit_order([]) == []


def ending(book: LeaseTable, worker: str) -> Lease:
    """The lease of a worker that ends."""
    lease = book.get(worker)
    assert lease is not None
    return lease


def test_a_lapse_is_offered_with_what_may_spare_it() -> None:
    """A beat in the registry spares it only if it is younger than what we heard ourselves."""
    book, hearing = LeaseTable(60.0), Hearing(0.0)
    book.beat("w", 0.0, incarnation="a", ttl=10.0)
    book.granted("w", 5)
    book.lapse(10.5)
    lease = ending(book, "w")
    assert lease.ending is not None

    hearing.now = 10.5

    case = case_of(lease, lease.ending, 10.5, hearing)

    assert (case.worker, case.epoch, case.incarnation, case.reason, case.ttl) == ("w", 5, "a", "lapsed", 10.0)
    assert (case.silent_for, case.overdue, case.spare_within) == (10.5, 0.5, 9.5)
    assert case.evidence["why"] == "no heartbeat for 10.500 s of hearing; ttl 10 s"


def test_the_registry_cannot_spare_a_life_that_ended_on_proof() -> None:
    """A goodbye is a goodbye."""
    book, hearing = LeaseTable(60.0), Hearing(0.0)
    book.beat("w", 0.0)
    book.release("w", None, 1.0, "died", {"signal": 9})
    lease = ending(book, "w")
    assert lease.ending is not None

    case = case_of(lease, lease.ending, 1.0, hearing)

    assert (case.reason, case.overdue, case.spare_within) == ("died", None, None)
    assert case.evidence["details"] == {"signal": 9}


def test_a_lease_that_was_only_restored_says_so() -> None:
    """No last heartbeat is invented for it."""
    book, hearing = LeaseTable(60.0), Hearing(0.0)
    book.restore("w", 0.0, 10.0, epoch=1)
    book.lapse(10.0)
    lease = ending(book, "w")
    assert lease.ending is not None

    case = case_of(lease, lease.ending, 10.0, hearing)

    assert case.silent_for is None
    assert "nothing was heard of it in 10.000 s of listening" in case.evidence["why"]


def test_names_that_differ_only_in_case_or_cannot_be_heard_are_not_restored() -> None:
    """Nobody can say whose work theirs is; the sweep reports them."""
    known = [Life("Known", 1, None, 10.0)]
    others = [Life(name, None, None, None) for name in ("a", "b", "B", "known", "with space", "c")]

    names, left = distinct(known, others)

    assert [life.worker for life in names] == ["a", "c"]
    assert left == 4


@pytest.mark.parametrize("name", ['x"; DROP TABLE worker; --', "sel ect", 'a""b'])
def test_an_identifier_cannot_become_sql(name: str) -> None:
    """It is quoted, with its quotes doubled."""
    parts = work_parts(WorkTable(work="x", table=name, owner=name), name)

    assert parts["work_table"] == f"{quoted(name)}.{quoted(name)}"
    assert quoted(name)[1:-1].replace('""', "").count('"') == 0


def test_optional_columns_that_a_table_lacks_are_left_out() -> None:
    """And the type of the id is taken from the catalogue."""
    fitted = WORKFLOWS.present({"id": "bigint", "status": "text", "worker_id": "text", "updated_at": "timestamptz"})

    parts = work_parts(fitted, "public")

    assert parts["put_back"] == '"status" = $3, "worker_id" = NULL, "updated_at" = now()'
    assert (parts["kind"], parts["queue"], parts["id_type"]) == ("NULL::text", "NULL::text", "bigint")


def test_every_update_of_work_repeats_what_it_believes() -> None:
    """Status and owner stand in the UPDATE itself, whatever was locked before it."""
    statements = Statements("public", Registry(), [WORKFLOWS])

    for name in ("reclaim_first", "reclaim_next"):
        update = statements.on(WORKFLOWS, name).partition("UPDATE ")[2].partition("RETURNING")[0]
        assert 'w."status" = $2' in update.partition("WHERE")[2]
        assert 'w."worker_id" = t.worker' in update.partition("WHERE")[2]


def test_a_statement_with_an_unknown_part_is_refused() -> None:
    """A slip in a statement is found when it is rendered."""
    with pytest.raises(KeyError):
        rendered("SELECT {nothing}", {})
    assert rendered("SELECT '{}'", {}) == "SELECT '{}'"
