"""What Postgres lets the service do: deploy/postgres/role.sql as it is, and what `liveness check` says of rights."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from nats.aio.client import Client

from liveness.checks import Of, check_all, privileges
from liveness.embedded import PostgresServer
from liveness.findings import Finding, Weight
from liveness.settings import load
from tests.conftest import HostTables, fresh_database, look_again
from tests.integration.running import News, Serve, ask, beat
from tests.roles import Roles

ROOT = Path(__file__).parents[2]
HOST_DDL = ROOT / "schemas" / "postgres" / "host" / "0001_reference.sql"

# With the service's login; the owner's name is put in.
DENIED = (
    "DELETE FROM workflow_execution",
    "TRUNCATE task_execution",
    "INSERT INTO worker (worker_name) VALUES ('w')",
    "UPDATE workflow_execution SET kind = 'other'",
    "UPDATE worker SET worker_name = 'other'",
    "SELECT created_at FROM workflow_execution",
    "SELECT * FROM task_execution",
    "BEGIN; LOCK TABLE worker IN ACCESS EXCLUSIVE MODE",
    "DROP TABLE worker",
    "ALTER TABLE workflow_execution DISABLE TRIGGER ALL",
    "CREATE TABLE public.mine ()",
    "CREATE TABLE liveness.mine ()",
    "CREATE SCHEMA mine",
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE ROLE mine",
    "ALTER TABLE liveness.epoch ADD COLUMN more int",
    "DROP TABLE liveness.outbox",
    "TRUNCATE liveness.reclaim",
    "SET ROLE {owner}",
    "SELECT pg_read_file('PG_VERSION')",
)


@pytest.fixture(scope="module")
def set_up(postgres: PostgresServer, command: Callable[[str], None]) -> Iterator[Roles]:
    """The roles, set up as the docs say, in a database to be copied."""
    with fresh_database(postgres, command, "template1") as template:
        roles = Roles(template)

        async def make() -> None:
            connection = await asyncpg.connect(template)
            await connection.execute(HOST_DDL.read_text(encoding="utf-8").replace("{schema}", "public"))
            await connection.close()
            roles.run_script()
            await roles.migrate()

        asyncio.run(make())
        yield roles
    for role in (roles.service, roles.owner):
        command(f"DROP ROLE {role}")


@pytest.fixture
def roles(postgres: PostgresServer, command: Callable[[str], None], set_up: Roles) -> Iterator[Roles]:
    """The same in a fresh database."""
    with fresh_database(postgres, command, set_up.database) as fresh:
        yield Roles(fresh, set_up)


@pytest.fixture
async def as_operator(roles: Roles) -> AsyncIterator[HostTables]:
    """The workflow server's side."""
    connection = await asyncpg.connect(roles.admin)
    yield HostTables(connection)
    await connection.close()


async def test_the_service_does_its_whole_duty_under_its_role(
    as_operator: HostTables, roles: Roles, serve: Serve, client: Client, news: News
) -> None:
    """Beats are recorded, a lapse is given back and told of, a sweep takes an orphan; and nothing is left to say."""
    host = as_operator
    await host.worker("w1", silent_for=500)
    dsn = roles.dsn(roles.service)
    await serve(postgres_dsn=dsn, checkpoint_interval=0.2, workflow_stuck_timeout=1.0, heartbeat_timeout=1.0)
    await beat(client, "w1", ttl=1, incarnation="a")
    (workflow,) = await host.workflows("w1")
    (orphan,) = await host.workflows("gone", untouched_for=500)
    await host.tasks("w1")

    while await host.state(orphan) != ("PENDING", None):
        await ask(client, "sweep")
        await look_again()
    told = {("workflow", "gone"), ("workflow", "w1"), ("task", "w1")}
    while told:
        event = await news.next()
        if event.type.endswith(".reclaimed"):
            told.remove((event.type.partition(".")[0], event.data.former_worker))  # type: ignore[union-attr]
    assert await host.state(workflow) == ("PENDING", None)
    assert await host.connection.fetchval("SELECT last_heartbeat_at > now() - interval '10 s' FROM worker")
    while await host.worker_status("w1") != ["OFFLINE"]:
        await look_again()
    assert (await ask(client, "why", work_id=workflow))["known"]


async def test_the_role_can_not_do_what_the_service_never_does(roles: Roles) -> None:
    """Nothing but the statuses and owners of work can be changed, and no payload be read, with the service's login."""
    connection = await asyncpg.connect(roles.dsn(roles.service))
    done = []
    for statement in DENIED:
        try:
            await connection.execute(statement.format(owner=roles.owner))
        except asyncpg.InsufficientPrivilegeError:
            await connection.execute("ROLLBACK")
            continue
        done.append(statement)
    await connection.close()

    assert done == []


async def test_the_script_puts_an_older_installation_under_the_roles_and_can_be_run_again(dsn: str) -> None:
    """Whose schema belonged to another one, and whose role had more than it needs."""
    roles = Roles(dsn)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            f"CREATE ROLE {roles.service} LOGIN CREATEROLE BYPASSRLS;"
            f" GRANT ALL ON ALL TABLES IN SCHEMA public, liveness TO {roles.service}"
        )
        roles.run_script()
        roles.run_script()
        await roles.migrate()

        owners = await connection.fetch(
            "SELECT relowner::regrole::text AS owner FROM pg_class WHERE relnamespace = 'liveness'::regnamespace"
            " UNION SELECT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'liveness'::regnamespace"
        )
        assert [row["owner"] for row in owners] == [roles.owner]
        assert await looked(roles.dsn(roles.service)) == []
    finally:
        await roles.drop(connection)
        await connection.close()


async def test_the_script_grants_what_the_service_asks_for(roles: Roles) -> None:
    """What is missing is said with the statement that grants it, and it is what the script grants."""
    service = roles.dsn(roles.service)
    assert await looked(service) == []
    before = await rights(roles.admin)
    connection = await asyncpg.connect(roles.admin)
    await connection.execute(
        f"REVOKE ALL ON ALL TABLES IN SCHEMA public, liveness FROM {roles.service};"
        f" REVOKE USAGE ON SCHEMA liveness FROM {roles.service}"
    )

    missing = await looked(service)

    assert {(one.weight, one.about) for one in missing} == {(Weight.BROKEN, f"role {roles.service}")}
    assert [one.says.removeprefix(f"the role {roles.service} may not ") for one in missing] == [
        "use the schema liveness",
        "SELECT or UPDATE in public.worker",
        "SELECT or UPDATE in public.workflow_execution",
        "SELECT or UPDATE in public.task_execution",
    ]
    while missing:
        for finding in missing:
            for statement in finding.statements:
                await connection.execute(statement)
        missing = await looked(service)
    await connection.close()
    assert await rights(roles.admin) == before


async def test_a_single_column_that_is_missing_is_named(roles: Roles) -> None:
    """A column that came later, say; so is a privilege on one table of ours."""
    connection = await asyncpg.connect(roles.admin)
    await connection.execute(
        f"REVOKE UPDATE (version) ON workflow_execution FROM {roles.service};"
        f" REVOKE DELETE, UPDATE ON liveness.outbox FROM {roles.service}"
    )
    await connection.close()

    ours, theirs = await looked(roles.dsn(roles.service))

    assert ours.says.endswith("may not UPDATE or DELETE in liveness.outbox")
    assert theirs.says.endswith("may not UPDATE version in public.workflow_execution")
    assert theirs.statements == (f'GRANT UPDATE ("version") ON "public"."workflow_execution" TO "{roles.service}";',)


async def test_rights_that_are_too_wide_are_told_and_what_is_proposed_takes_them_back(roles: Roles) -> None:
    """Other columns, whole tables, roles, schemas; none of them keeps the service from its duty."""
    connection = await asyncpg.connect(roles.admin)
    await connection.execute(
        f"GRANT UPDATE (kind), DELETE ON workflow_execution TO {roles.service}; GRANT SELECT ON worker TO PUBLIC;"
        f" GRANT CREATE ON SCHEMA public TO PUBLIC; ALTER ROLE {roles.service} CREATEDB BYPASSRLS"
    )

    found = await looked(roles.dsn(roles.service))

    assert {one.weight for one in found} == {Weight.BETTER}
    assert [(one.about, one.says.partition(roles.service)[2]) for one in found] == [
        (f"role {roles.service}", ""),
        (f"role {roles.service}", ""),
        ("public.worker", " may do more than it needs to: SELECT created_at"),
        ("public.workflow_execution", " may do more than it needs to: UPDATE kind; DELETE"),
        ("schema public", " may make things in it"),
    ]
    for finding in found:
        for statement in finding.statements:
            await connection.execute(statement)
    (left,) = await looked(roles.dsn(roles.service))
    # Of everybody's, which only whoever gave it knows to take.
    assert (left.about, "PUBLIC" in left.fix) == ("public.worker", True)
    await connection.close()


async def test_a_superuser_and_an_owner_are_told(roles: Roles) -> None:
    """A superuser once, for all that follows from it; who owns a table of the host's may drop it."""
    connection = await asyncpg.connect(roles.admin)
    await connection.execute(f"ALTER TABLE worker OWNER TO {roles.service}")
    await connection.close()

    (superuser,) = await looked(roles.admin)
    (owner,) = await looked(roles.dsn(roles.service))

    assert (superuser.weight, superuser.about, superuser.says) == (Weight.BETTER, "role postgres", "is a superuser")
    assert (owner.weight, owner.about) == (Weight.BETTER, "public.worker")
    assert "owns it" in owner.says
    assert all("deploy/postgres/role.sql" in one.fix for one in (superuser, owner))


async def looked(dsn: str, **overrides: Any) -> list[Finding]:
    """Return what the check of rights says of a role."""
    made, _ = load({}, postgres_dsn=dsn, **overrides)
    return await check_all(made, 5.0, checks=[(privileges, Of.POSTGRES)])


async def rights(dsn: str) -> list[tuple[str, ...]]:
    """Return all rights on columns of the host's tables."""
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "SELECT a.attrelid::regclass::text, a.attname, a.attacl::text FROM pg_attribute AS a"
        " WHERE a.attrelid = ANY (ARRAY['worker', 'workflow_execution', 'task_execution']::regclass[])"
        " AND a.attacl IS NOT NULL ORDER BY 1, 2"
    )
    await connection.close()
    return [tuple(row) for row in rows]
