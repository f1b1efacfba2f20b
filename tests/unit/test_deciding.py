"""Small pure decisions: the order of events, who is restored, what SQL is rendered."""

import pytest

from liveness.parts import rendered, work_parts
from liveness.relay import in_commit_order
from liveness.restore import distinct
from liveness.store import Life, Pending
from liveness.store.statements import Statements
from liveness.work import WORKFLOWS, Column, Registry, WorkTable, quoted


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
    text = Column(type="text")
    fitted = WORKFLOWS.present(
        {"id": Column(type="bigint", base="bigint"), "status": text, "worker_id": text, "updated_at": text}
    )

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
