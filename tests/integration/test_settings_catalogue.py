"""Settings that do not fit the tables that are there: each is answered at start by one line."""

from collections.abc import Callable, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from liveness.checks import Of, check_all, tables
from liveness.errors import CannotStartError
from liveness.settings import Settings
from liveness.store import Database, Store
from tests.conftest import HostTables

TABLES = """
    CREATE TYPE state AS ENUM ('todo', 'doing', 'done');
    CREATE DOMAIN short AS varchar(4);
    CREATE TABLE workers (
        id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, name text NOT NULL UNIQUE, code uuid,
        organisation text NOT NULL,
        condition text NOT NULL DEFAULT 'up' CHECK (condition IN ('up', 'down')),
        beat timestamptz NOT NULL DEFAULT now()
    );
    CREATE TABLE jobs (
        id bigserial PRIMARY KEY, other_id bigint, status state NOT NULL, tenant integer, queue short,
        number text CHECK (number <> 'none'), worker text, place bigint, worker_id bigint REFERENCES workers, code uuid,
        held_by text NOT NULL DEFAULT '', name_ci character(8), words text[], tries integer NOT NULL DEFAULT 0,
        twice integer GENERATED ALWAYS AS (tries * 2) STORED, changed timestamptz NOT NULL DEFAULT now(), day date
    );
    CREATE INDEX ON jobs (worker) WHERE status = 'doing';
    CREATE TABLE elsewhere_jobs (id bigserial PRIMARY KEY);
    CREATE VIEW jobs_view AS SELECT * FROM jobs;
"""
JOB = {"name": "job", "table": "jobs", "owner": "worker", "running": "doing", "waiting": "todo", "touched": "changed"}
WORKERS = {"table": "workers", "name": "name", "heartbeat": "beat"}


def job(**changes: Any) -> dict[str, Any]:
    """Settings that are right but for changes of `[[work]]`."""
    return {"work": [{key: value for key, value in (JOB | changes).items() if value is not None}]}


def with_workers(registry: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """Settings that are right but for changes of `[registry]` and `[[work]]`."""
    return job(**changes) | {"registry": WORKERS | (registry or {})}


WRONG: list[tuple[dict[str, Any], str]] = [
    (job(table="jbs"), "work[0].table = 'jbs': there is no table public.jbs: did you mean public.jobs?"),
    (job(schema="flow"), "work[0].table = 'jobs': there is no table flow.jobs: did you mean public.jobs?"),
    (job(table="jobs_view"), "work[0].table = 'jobs_view': public.jobs_view is a view, whose rows cannot be locked"),
    (job(status="state"), "work[0].status = 'state': the table public.jobs has no such column: did you mean status?"),
    (job(owner="wrker"), "work[0].owner = 'wrker': the table public.jobs has no such column: did you mean worker?"),
    (job(bump=["version"]), "work[0].bump = 'version': the table public.jobs has no such column: it has id,"),
    (job(touched="updated"), "work[0].touched = 'updated': the table public.jobs has no such column"),
    (job(where={"tennant": 1}), "work[0].where.tennant = 'tennant': the table public.jobs has no such column: did"),
    (job(owner="words"), "work[0].owner = 'words': it is of type text[]: a worker is told by a text, varchar, uuid"),
    (job(owner="name_ci"), "work[0].owner = 'name_ci': it is of type character(8), which pads what it holds: a worker"),
    (job(touched="day"), "public.jobs.day is of type date: ages are told by it, so it has to be a timestamptz"),
    (job(touched="tries"), "public.jobs.tries is of type integer: ages are told by it"),
    (
        job(id="other_id"),
        "work[0].id = 'other_id': rows are told apart by it, and no unique index of public.jobs is on",
    ),
    (job(owner="held_by"), "work[0].owner = 'held_by': public.jobs.held_by may not be NULL, and work[0].free_owner"),
    (job(bump=["queue"]), "work[0].bump = 'queue': public.jobs.queue is of type short: only a number can grow by 1"),
    (
        job(touch=["tries"]),
        "work[0].touch = 'tries': public.jobs.tries is of type integer: only a timestamp can become",
    ),
    (job(error="tries"), "work[0].error = 'tries': public.jobs.tries is of type integer: a sentence needs a text"),
    (job(on_crash="count", attempts="number"), "work[0].attempts = 'number': public.jobs.number is of type text: att"),
    (
        job(on_crash="fail", attempts="tries", max_attempts="tenant", failed="dead"),
        "work[0].failed = 'dead': state has no such value: it has todo, doing, done",
    ),
    (job(clear=["changed"]), "work[0].clear = 'changed': public.jobs.changed may not be NULL, which is what clear"),
    (job(bump=["twice"]), "work[0].bump = 'twice': public.jobs.twice is generated, so nobody can write it"),
    (job(running="doin"), "work[0].running = 'doin': state has no such value: did you mean 'doing'?"),
    (job(waiting="PENDING"), "work[0].waiting = 'PENDING': state has no such value: it has todo, doing, done"),
    (job(status="tenant", waiting="0"), "work[0].running = 'doing': public.jobs.tenant is of type integer: invalid"),
    (job(status="queue", waiting="todo"), "work[0].running = 'doing': public.jobs.queue is of type short, too short"),
    (job(status="number", waiting="none"), "work[0].waiting = 'none': the constraint jobs_number_check of public.jobs"),
    (job(where={"tenant": "x"}), "work[0].where.tenant = 'x': public.jobs.tenant is of type integer: invalid input"),
    (job(where={"code": "x"}), "work[0].where.code = 'x': public.jobs.code is of type uuid: invalid input syntax"),
    (job(where={"words": "x"}), "work[0].where.words = 'x': public.jobs.words is of type text[]: malformed array"),
    (job(owner="code", free_owner="none"), "work[0].free_owner = 'none': public.jobs.code is of type uuid: invalid"),
    (with_workers({"table": "worker_list"}), "registry.table = 'worker_list': there is no table public.worker_list"),
    (with_workers({"heartbeat": "beats"}), "registry.heartbeat = 'beats': the table public.workers has no such column"),
    (with_workers({"heartbeat": "organisation"}), "public.workers.organisation is of type text: ages are told by it"),
    (with_workers({"id": "organisation"}), "registry.id = 'organisation': rows are told apart by it, and no unique"),
    (
        with_workers({"status": "condition", "online": "up", "up": ["up"]}),
        "registry.offline = 'OFFLINE': the constraint workers_condition_check of public.workers refuses it:",
    ),
    (
        with_workers({"status": "condition", "online": "up", "offline": "down", "up": ["up", "ill"], "degraded": "ill"})
        | {"mark_suspects": True},
        "registry.degraded = 'ill': the constraint workers_condition_check of public.workers refuses it:",
    ),
    (
        with_workers(owner="worker_id"),
        "work[0].owner_is = 'name': public.jobs.worker_id refers to public.workers.id, which is no name: set owner_is",
    ),
    (
        with_workers(owner="code", owner_is="registry_id"),
        "work[0].owner = 'code': it is of type uuid and public.workers.id of type bigint: it cannot hold that",
    ),
    (
        with_workers({"name": "code"}, owner="place"),
        "work[0].owner = 'place': it is of type bigint and public.workers.code of type uuid: no worker's name can be",
    ),
    (
        with_workers({"name": "id"}, owner="place") | {"register_unknown_workers": True},
        "register_unknown_workers = true cannot be used: the names in public.workers.id are of type bigint",
    ),
    (
        with_workers() | {"register_unknown_workers": True},
        "register_unknown_workers = true cannot be used: a row of public.workers needs organisation, too",
    ),
]


async def started(settings: Settings) -> list[MutableMapping[str, Any]]:
    """Open a store as a start does; return what was logged."""
    database = Database(settings.postgres_dsn)
    try:
        with capture_logs() as logs:
            await Store.open(database, settings)
    finally:
        await database.close()
    return logs


async def refused(settings: Settings) -> str:
    """Return what a start says, which is one line."""
    with pytest.raises(CannotStartError) as error:
        await started(settings)
    text = str(error.value)
    assert "\n" not in text
    return text


async def test_wrong_tables_are_answered_by_one_line(host: HostTables, settings: Callable[..., Settings]) -> None:
    """Which names the setting, its value and the fix; of three dozen of them."""
    await host.connection.execute(TABLES)

    answers = [await refused(settings(**values)) for values, _ in WRONG]

    for answer, (_, line) in zip(answers, WRONG, strict=True):
        assert answer.startswith(line)
    assert len(WRONG) > 30


@pytest.mark.parametrize(
    "values",
    [
        job(),
        job(bump=["tries"], touch=["changed", "day"], clear=["number"], queue="queue", kind="number"),
        job(owner="held_by", free_owner=""),
        job(on_crash="fail", attempts="tries", max_retries="tenant", failed="done", error="number"),
        job(
            status="tenant",
            running=1,
            waiting=0,
            on_crash="fail",
            attempts="tries",
            max_attempts="place",
            failed=9,
        ),
        job(owner="code", free_owner="00000000-0000-0000-0000-000000000000", touched=None),
        job(owner="place", where={"tenant": [1, 2], "queue": "a"}),
        job(where={"code": "0a0a0a0a-0000-4000-8000-00000000000a", "tenant": 7}),
        job(status="tenant", running=1, waiting=0, where={"number": ["a", "b"]}),
        with_workers(owner="worker_id", owner_is="registry_id"),
        with_workers({"name": "id"}, owner="place"),
        with_workers({"status": "condition", "online": "up", "offline": "down"}),
        {"registry": WORKERS},
        job() | {"mark_suspects": True},
        {"mark_suspects": True},
    ],
    ids=str,
)
async def test_tables_that_fit_start(
    host: HostTables, settings: Callable[..., Settings], values: dict[str, Any]
) -> None:
    """In both modes; Postgres takes every statement on them."""
    await host.connection.execute(TABLES)

    for mode in ("act", "observe"):
        store_settings = settings(mode=mode, **values)
        await started(store_settings)


async def test_missing_rights_are_named_with_the_grant_that_mends_them(
    dsn: str, host: HostTables, settings: Callable[..., Settings]
) -> None:
    """On the schema, the table of work and the registry; and carried out one after the other they are all."""
    await host.connection.execute(
        TABLES + "CREATE SCHEMA flow; ALTER TABLE jobs SET SCHEMA flow; ALTER TABLE workers SET SCHEMA flow;"
        " DROP ROLE IF EXISTS sidecar; CREATE ROLE sidecar LOGIN;"
        " GRANT USAGE ON SCHEMA liveness TO sidecar; GRANT ALL ON ALL TABLES IN SCHEMA liveness TO sidecar"
    )
    values = with_workers({"schema": "flow"}, schema="flow")
    as_sidecar = settings(
        **values, postgres_dsn=dsn.replace("postgres@", "sidecar@").replace("user=postgres", "user=sidecar")
    )
    said = []
    while True:
        try:
            await started(as_sidecar)
        except CannotStartError as error:
            said.append(str(error))
            await host.connection.execute("GRANT" + said[-1].partition(": GRANT")[2])
        else:
            break

    schema, registry, work = said
    assert schema.startswith("registry.schema = 'flow': the role sidecar may not use the schema flow: GRANT USAGE ON ")
    assert registry.startswith(
        "registry.table = 'workers': the role sidecar may not SELECT or UPDATE in flow.workers: "
    )
    assert work == (
        "work[0].table = 'jobs': the role sidecar may not SELECT or UPDATE in flow.jobs: GRANT SELECT "
        '("id", "status", "worker", "changed", "xmin"), UPDATE ("status", "worker") ON "flow"."jobs" TO "sidecar";'
    )
    await host.connection.execute("DROP OWNED BY sidecar; DROP ROLE sidecar")


async def test_rows_that_may_be_hidden_are_told_of(
    dsn: str, host: HostTables, settings: Callable[..., Settings]
) -> None:
    """At start, and by `liveness check` with the statement that mends it."""
    await host.connection.execute(
        TABLES + "DROP ROLE IF EXISTS half_blind; CREATE ROLE half_blind LOGIN;"
        " GRANT USAGE ON SCHEMA liveness TO half_blind;"
        " GRANT ALL ON ALL TABLES IN SCHEMA liveness, public TO half_blind;"
        " ALTER TABLE jobs ENABLE ROW LEVEL SECURITY"
    )
    blind = settings(**job(), postgres_dsn=dsn.replace("postgres@", "half_blind@"))
    try:
        logs = await started(blind)
        findings = await check_all(blind, 5.0, checks=[(tables, Of.POSTGRES)])
    finally:
        await host.connection.execute("DROP OWNED BY half_blind; DROP ROLE half_blind")

    assert [line["table"] for line in logs if line["event"] == "rows_hidden"] == ["public.jobs"]
    assert [(finding.about, finding.statements) for finding in findings] == [
        ("public.jobs", ('ALTER ROLE "half_blind" BYPASSRLS;',))
    ]


async def test_doubts_are_logged_and_start(host: HostTables, settings: Callable[..., Settings]) -> None:
    """An index that is not there, with what makes it, for every table."""
    await host.connection.execute(TABLES + "DROP INDEX jobs_worker_idx")

    logs = await started(settings(**with_workers({"name": "code"}, owner="code", touched=None)))

    made = [statement for line in logs if line["event"] == "index_missing" for statement in line["create"]]
    assert made == [
        'CREATE INDEX CONCURRENTLY "jobs_code_liveness" ON "public"."jobs" ("code") WHERE "status" = \'doing\';',
        'CREATE INDEX CONCURRENTLY "workers_code_liveness" ON "public"."workers" ("code");',
    ]
    for statement in made:
        await host.connection.execute(statement)
    logs = await started(settings(**with_workers({"name": "code"}, owner="code", touched=None)))
    assert [line for line in logs if line["event"] == "index_missing"] == []
