"""What `liveness check` says of Postgres: the server, our schema, the host's tables and their indexes."""

import time
from collections.abc import Callable

import asyncpg
import pytest

from liveness.checks import CHECKS, Of, check_all, privileges
from liveness.findings import Finding, Weight
from liveness.settings import Settings
from tests.conftest import HostTables

HOSTILE = """it's "the" host; DROP SCHEMA public\\ %"""
OWNER, NAME = "workflow_execution_owner_idx", "worker_name_idx"
# What is of no account in a table of a handful of rows, and plain in one of so many.
MANY = 60_000
SECONDS = 5.0


class Checking:
    """Checks the fresh database."""

    def __init__(self, settings: Callable[..., Settings]) -> None:
        self._settings = settings

    async def __call__(self, seconds: float = SECONDS, *, ahead: float = 0.0, **overrides: object) -> list[Finding]:
        """Return what there is to say, on a host whose clock goes so many seconds ahead."""
        # The tests' own role may do everything, which would be said each time.
        of_postgres = [check for check in CHECKS if check[1] is Of.POSTGRES and check[0] is not privileges]
        return await check_all(
            self._settings(**overrides), seconds, clock=lambda: time.time() + ahead, checks=of_postgres
        )


@pytest.fixture
def check(settings: Callable[..., Settings]) -> Checking:
    """Check the fresh database."""
    return Checking(settings)


async def everything(host: HostTables) -> set[tuple[str, str]]:
    """Return all relations that there are, temporary ones of any session included."""
    rows = await host.connection.fetch("SELECT relnamespace::regnamespace::text AS space, relname FROM pg_class")
    return {(row["space"], row["relname"]) for row in rows if not row["space"].startswith("pg_toast")}


async def carry_out(host: HostTables, findings: list[Finding]) -> None:
    """Do as is proposed."""
    for finding in findings:
        for statement in finding.statements:
            await host.connection.execute(statement)


async def many_finished(host: HostTables, schema: str = "public") -> None:
    """Fill the table with what was finished long ago, by workers whose names are still there."""
    space = schema.replace('"', '""')
    await host.connection.execute(
        f'INSERT INTO "{space}".workflow_execution (worker_id, status)'  # noqa: S608 - a test's own words
        f" SELECT 'w' || i % 7, 'COMPLETED' FROM generate_series(1, {MANY}) AS i"
    )
    await host.connection.execute(f'ANALYZE "{space}".workflow_execution')


async def test_the_reference_tables_want_nothing(host: HostTables, check: Checking) -> None:
    """They have the indexes, however small the tables are."""
    await host.workflows("w1")

    assert await check() == []


@pytest.mark.parametrize(
    ("index", "about", "column"),
    [
        (OWNER, "public.workflow_execution", "worker_id"),
        ("task_execution_owner_idx", "public.task_execution", "worker_id"),
        (NAME, "public.worker", "worker_name"),
    ],
)
async def test_a_missing_index_is_proposed_and_what_is_proposed_is_enough(
    host: HostTables, check: Checking, index: str, about: str, column: str
) -> None:
    """It is made by nobody but whoever carries out what was said; then there is nothing to say."""
    await host.worker("w1")
    await host.workflows("w1")
    await host.connection.execute(f"DROP INDEX {index}")
    before = await everything(host)

    found = await check()

    # The table is small as yet.
    assert [(one.check, one.weight, one.about) for one in found] == [("indexes", Weight.BETTER, about)]
    assert column in found[0].says
    assert found[0].statements[0].startswith('CREATE INDEX CONCURRENTLY "')
    assert all(gain.then is not None for gain in found[0].gains)
    assert await everything(host) == before
    await carry_out(host, found)
    assert await check() == []


async def test_the_gain_is_measured(host: HostTables, check: Checking) -> None:
    """Among many rows that are finished, the few that run are found at once with the index, and not without."""
    await many_finished(host)
    await host.workflows("w1", 20)
    await host.connection.execute(f"DROP INDEX {OWNER}")

    (finding,) = await check()

    assert len(finding.gains) == 2
    for gain in finding.gains:
        assert not gain.at_least
        assert gain.then is not None
        assert gain.now > 5 * gain.then > 0
    assert "20 RUNNING rows" in finding.measured


@pytest.mark.parametrize(
    "columns", ["(status, worker_id)", "(worker_id, status)", "(worker_id, id) WHERE status = 'RUNNING'"]
)
async def test_another_index_that_leads_there_is_enough(host: HostTables, check: Checking, columns: str) -> None:
    """The host may have made one for itself; what counts is where it leads."""
    await many_finished(host)
    await host.connection.execute(f"DROP INDEX {OWNER}")
    await host.connection.execute(f"CREATE INDEX theirs ON workflow_execution {columns}")

    assert await check() == []


async def test_an_index_on_the_owners_of_finished_rows_is_bettered_where_it_is_slow(
    host: HostTables, check: Checking
) -> None:
    """It leads to all that its worker ever finished; where that is nothing, it is as good as any."""
    await host.connection.execute(f"DROP INDEX {OWNER}")
    await host.connection.execute("CREATE INDEX theirs ON workflow_execution (worker_id)")
    assert await check() == []
    await many_finished(host)
    await host.workflows("w1", 3)

    (finding,) = await check()

    assert "by a detour" in finding.says


@pytest.mark.parametrize("columns", ["(status)", "(status, queue, worker_id)"])
async def test_an_index_on_what_runs_is_bettered_where_much_runs(
    host: HostTables, check: Checking, columns: str
) -> None:
    """To read all that runs is no matter as long as it is little."""
    await many_finished(host)
    await host.connection.execute(f"DROP INDEX {OWNER}")
    await host.connection.execute(f"CREATE INDEX theirs ON workflow_execution {columns}")
    await host.workflows("w1", 10)
    assert await check() == []
    await host.connection.execute(
        "UPDATE workflow_execution"
        " SET status = 'RUNNING', queue = id, worker_id = worker_id || '-' || left(id::text, 3)"
    )

    (finding,) = await check()

    assert "by a detour" in finding.says


async def test_hostile_names_are_quoted(host: HostTables, check: Checking) -> None:
    """A schema may be called anything; what is proposed can be carried out as it stands."""
    space = HOSTILE.replace('"', '""')
    await host.connection.execute(f'CREATE SCHEMA "{space}"')
    for table in ("worker", "workflow_execution", "task_execution"):
        await host.connection.execute(f'CREATE TABLE "{space}".{table} (LIKE public.{table} INCLUDING DEFAULTS)')
    await many_finished(host, HOSTILE)

    found = await check(postgres_schema=HOSTILE)

    assert len(found) == 3
    assert all(gain.then is not None for finding in found for gain in finding.gains)
    await carry_out(host, found)
    assert await check(postgres_schema=HOSTILE) == []


async def test_a_partitioned_table_gets_its_indexes_one_by_one(host: HostTables, check: Checking) -> None:
    """CONCURRENTLY is refused on the whole; those of the partitions are adopted by the table's."""
    await host.connection.execute("ALTER TABLE workflow_execution RENAME TO former")
    await host.connection.execute("CREATE TABLE workflow_execution (LIKE former) PARTITION BY LIST (queue)")
    await host.connection.execute("CREATE TABLE \"p 1\" PARTITION OF workflow_execution FOR VALUES IN ('a')")
    await host.connection.execute("CREATE TABLE p2 PARTITION OF workflow_execution DEFAULT")

    found = await check()

    assert [len(finding.statements) for finding in found] == [3]
    await carry_out(host, found)
    assert await check() == []
    assert (
        await host.connection.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent::regclass::text ~ 'liveness'")
        == 2
    )


async def test_an_index_that_is_not_valid_is_named(host: HostTables, check: Checking) -> None:
    """One that failed half-way serves nobody, and stands in the way of its name."""
    (first,) = await _without_owner_index(host, check)
    await carry_out(host, [first])
    await host.connection.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text ~ '_liveness'"
    )

    (finding,) = await check()

    assert "workflow_execution_worker_id_liveness (it is being built" in finding.says
    assert finding.statements != first.statements
    await carry_out(host, [finding])
    assert await check() == []


async def test_what_takes_too_long_is_broken_off(host: HostTables, check: Checking) -> None:
    """On a table whose rows cannot even be counted in time, the proposal stands without its gain."""
    await host.connection.execute(f"DROP INDEX {OWNER}")
    await many_finished(host)
    await host.workflows("w1", 20)

    (finding,) = await check(seconds=0.001)

    assert finding.weight is Weight.BAD
    assert any(gain.at_least for gain in finding.gains)
    assert all(gain.then is None for gain in finding.gains if gain.at_least)
    assert "broken off after 0.001 s" in finding.measured


async def test_a_role_that_may_make_nothing_hears_what_it_takes_now(
    host: HostTables, check: Checking, dsn: str
) -> None:
    """Where no temporary copy can be made, the time as it is now is said, and why there is no other."""
    await host.connection.execute(f"DROP INDEX {OWNER}")
    database = dsn.rpartition("/")[2]
    await host.connection.execute(f"REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC")
    await host.connection.execute("CREATE ROLE reader_of_" + database + " LOGIN")
    await host.connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_of_{database}")
    try:
        found = await check(postgres_dsn=dsn.replace("postgresql://postgres", f"postgresql://reader_of_{database}"))
    finally:
        await host.connection.execute(f"DROP OWNED BY reader_of_{database}; DROP ROLE reader_of_{database}")

    (finding,) = [one for one in found if one.check == "indexes"]
    assert [gain.then for gain in finding.gains] == [None, None]
    assert "no temporary copy" in finding.measured


async def test_writers_are_not_kept_waiting(host: HostTables, check: Checking, dsn: str) -> None:
    """A host in the middle of writing the rows notices nothing, and is not waited for."""
    await host.connection.execute(f"DROP INDEX {OWNER}")
    (workflow,) = await host.workflows("w1")
    writer = await asyncpg.connect(dsn)
    try:
        transaction = writer.transaction()
        await transaction.start()
        await writer.execute("UPDATE workflow_execution SET status = 'COMPLETED' WHERE id = $1::uuid", workflow)
        assert len(await check()) == 1
        await transaction.rollback()
    finally:
        await writer.close()


@pytest.mark.parametrize(
    ("setting", "value", "weight", "words"),
    [
        ("default_transaction_read_only", "on", Weight.BROKEN, "nothing can be written: default_transaction_read_only"),
        ("transaction_timeout", "5s", Weight.BAD, "transaction_timeout (5 s)"),
        ("statement_timeout", "100ms", Weight.BAD, "statement_timeout (0.1 s)"),
        ("deadlock_timeout", "300ms", Weight.BAD, "deadlock_timeout (0.3 s)"),
        ("idle_session_timeout", "4s", Weight.BETTER, "idle_session_timeout (4 s)"),
    ],
)
async def test_a_setting_of_postgres_that_contradicts_ours(
    host: HostTables, check: Checking, dsn: str, setting: str, value: str, weight: Weight, words: str
) -> None:
    """It is named, with what it does and what mends it; those that a transaction of ours overrules are not."""
    database = dsn.rpartition("/")[2]
    for name, stated in (("lock_timeout", "1ms"), ("idle_in_transaction_session_timeout", "1ms"), (setting, value)):
        await host.connection.execute(f"ALTER DATABASE {database} SET {name} = '{stated}'")

    (finding,) = await check()

    assert (finding.check, finding.weight, finding.about) == ("postgres", weight, "Postgres")
    assert words in finding.says
    assert finding.why
    assert finding.fix


async def test_a_role_that_may_connect_too_seldom(host: HostTables, check: Checking, dsn: str) -> None:
    """By its own limit or the database's; a superuser is held to neither."""
    database = dsn.rpartition("/")[2]
    role = f"seldom_of_{database}"
    await host.connection.execute(f"ALTER DATABASE {database} CONNECTION LIMIT 21")
    assert [one for one in await check() if one.check == "postgres"] == []
    await host.connection.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 12")
    try:
        found = await check(postgres_dsn=dsn.replace("postgresql://postgres", f"postgresql://{role}"))
    finally:
        await host.connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

    (finding,) = [one for one in found if one.check == "postgres"]
    assert finding.says == "our role may have 12 connections, and two replicas have up to 22"


async def test_what_is_proposed_against_a_time_limit_is_enough(host: HostTables, check: Checking, dsn: str) -> None:
    """A role's own setting comes before its database's."""
    database = dsn.rpartition("/")[2]
    role = f"limited_of_{database}"
    await host.connection.execute(f"CREATE ROLE {role} LOGIN SUPERUSER")
    try:
        await host.connection.execute(f"ALTER DATABASE {database} SET transaction_timeout = '5s'")
        limited = dsn.replace("postgresql://postgres", f"postgresql://{role}")

        await carry_out(host, await check(postgres_dsn=limited))

        assert await check(postgres_dsn=limited) == []
    finally:
        await host.connection.execute(f"DROP ROLE {role}")


async def test_a_schema_that_is_not_as_we_need_it(host: HostTables, check: Checking) -> None:
    """What keeps the service from its start is said once, before all else, and the rest is looked at all the same."""
    await host.connection.execute(f"DROP SCHEMA liveness CASCADE; DROP INDEX {OWNER}")

    schema, index = await check()

    assert (schema.check, schema.weight, schema.about) == ("schema", Weight.BROKEN, "liveness serve")
    assert (schema.says, schema.fix) == ("the schema liveness has not been created", "run `liveness migrate`")
    assert index.check == "indexes"

    await host.connection.execute("DROP TABLE worker")
    schema, table = await check()
    assert (table.check, table.weight) == ("tables", Weight.BROKEN)
    assert table.says == "there is no table public.worker"
    assert "`liveness migrate --host-tables`" in table.fix


async def test_clocks_that_are_apart(host: HostTables, check: Checking) -> None:
    """That of this host costs nothing but understanding; rows that somebody dates by a wrong one are found too late."""
    await host.worker("w1", silent_for=-3600)
    await host.workflows("w1", untouched_for=-90)
    await host.workflows("w1", untouched_for=-0.5)
    await host.workflows("w1", status="PENDING", untouched_for=-90)

    worker, workflow, skew = await check(ahead=-200)

    assert {(one.check, one.weight) for one in (worker, workflow)} == {("clocks", Weight.BAD)}
    assert worker.about == "public.worker"
    assert "last_heartbeat_at lies up to 60 min in the future; rows: 1" in worker.says
    assert workflow.about == "public.workflow_execution"
    assert "updated_at" in workflow.says
    assert "rows: 1" in workflow.says
    assert skew.weight is Weight.BETTER
    assert "the database's clock is 3 min ahead of this host's" in skew.says


async def test_who_keeps_rows_locked_is_named(host: HostTables, check: Checking, dsn: str) -> None:
    """A session that hangs in a transaction keeps its rows from being put back; who only reads keeps none."""
    (workflow,) = await host.workflows("w1")
    writer, reader = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        await writer.execute("BEGIN")
        await writer.execute("UPDATE workflow_execution SET queue = 'b' WHERE id = $1::uuid", workflow)
        await reader.execute("BEGIN")
        await reader.execute("SELECT * FROM workflow_execution")
        pid = await writer.fetchval("SELECT pg_backend_pid()")

        assert await check() == []
        (finding,) = await check(workflow_stuck_timeout=0.001, heartbeat_timeout=1)
        assert (finding.check, finding.weight, finding.about) == ("held", Weight.BAD, "public.workflow_execution")
        assert finding.says.startswith(f"session {pid} (idle in transaction) has had rows of it locked")

        await carry_out(host, [finding])
        assert await check(workflow_stuck_timeout=0.001, heartbeat_timeout=1) == []
    finally:
        writer.terminate()
        await reader.close()


async def test_a_postgres_that_cannot_be_reached(check: Checking) -> None:
    """It is one finding, whatever else of it would have been looked at."""
    (finding,) = await check(postgres_dsn="postgresql://127.0.0.1:1/none")

    assert (finding.check, finding.weight, finding.about) == ("reach", Weight.BROKEN, "Postgres")
    assert finding.says.startswith("cannot be reached: ")
    assert finding.fix


async def _without_owner_index(host: HostTables, check: Checking) -> list[Finding]:
    await host.connection.execute(f"DROP INDEX {OWNER}")
    return await check()
