"""What is said about `[[work]]` and `[registry]` that cannot be meant, before any database is asked."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from liveness.errors import SettingsError
from liveness.parts import as_key, numbered
from liveness.settings import Settings, load
from liveness.store.statements import Statements
from liveness.tables import RegistryEntry, WorkEntry
from liveness.work import BUILT_IN, OWN_REGISTRY, Column, Registry, WorkTable

PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
WORK = {"name": "job", "table": "jobs", "owner": "worker", "running": "doing", "waiting": "todo"}
REGISTRY = {"table": "workers", "name": "name", "heartbeat": "beat"}
LONG = "x" * 64


def work(**changes: Any) -> dict[str, Any]:
    """A `[[work]]` that is right but for `changes`."""
    return {key: value for key, value in (WORK | changes).items() if value is not None}


def registry(**changes: Any) -> dict[str, Any]:
    """A `[registry]` that is right but for `changes`."""
    return {key: value for key, value in (REGISTRY | changes).items() if value is not None}


WRONG_WORK: list[tuple[dict[str, Any], str]] = [
    ({"ownr": "x"}, "there is no setting work[0].ownr (it is 'x'): did you mean owner?"),
    ({"colour": "red"}, "there is no setting work[0].colour (it is 'red'): it has name, table,"),
    ({"owner": None}, "work[0].owner is missing: say which column says who holds a row"),
    ({"running": None}, "work[0].running is missing: say which status a row has while somebody holds it"),
    ({"name": ""}, "work[0].name = '' cannot be used: it is empty"),
    ({"name": "a.b"}, "work[0].name = 'a.b' cannot be used: it is part of subjects and keys: use a letter, then"),
    ({"name": LONG}, f"work[0].name = '{LONG}' cannot be used: it is part of subjects"),
    ({"name": "worker"}, "work[0].name = 'worker' cannot be used: worker.* are events of the service's own"),
    ({"name": "liveness"}, "work[0].name = 'liveness' cannot be used: liveness.* are events of the service's own"),
    ({"table": 7}, "work[0].table = 7 cannot be used: expected `str`, got `int`"),
    ({"table": ""}, "work[0].table = '' cannot be used: a name in Postgres is not empty"),
    ({"owner": LONG}, f"work[0].owner = '{LONG}' cannot be used: a name in Postgres has at most 63 bytes"),
    ({"id": "a\0b"}, "work[0].id = 'a\\x00b' cannot be used: it holds a control character"),
    ({"waiting": "doing"}, "work[0].waiting = 'doing' cannot be used: running is the same"),
    ({"running": 1, "waiting": "1"}, "work[0].waiting = '1' cannot be used: running is the same"),
    ({"running": ""}, "work[0].running = '' cannot be used: it is empty: say the value that the column has"),
    ({"owner_is": "id"}, "work[0].owner_is = 'id' cannot be used: invalid enum value"),
    ({"owner_is": "registry_id"}, "work[0].owner_is = 'registry_id' cannot be used: there is no [registry]"),
    ({"owner": "status"}, "work[0].owner = 'status' cannot be used: status is the same column"),
    ({"bump": "version"}, "work[0].bump = 'version' cannot be used: expected `array`, got `str`"),
    ({"bump": ["status"]}, "work[0].bump = ['status'] cannot be used: status is in status already"),
    ({"touch": ["at"], "clear": ["at"]}, "work[0].clear = ['at'] cannot be used: at is in touch already"),
    ({"bump": ["n", "n"]}, "work[0].bump = ['n', 'n'] cannot be used: n is in bump already"),
    ({"touched": "worker"}, "work[0].touched = 'worker' cannot be used: it says something else already"),
    ({"attempts": "tries"}, "work[0].attempts = 'tries' cannot be used: on_crash is 'put_back', which counts nothing"),
    ({"on_crash": "count"}, "work[0].on_crash = 'count' cannot be used: there is no column that counts: name it"),
    ({"on_crash": "fail", "attempts": "n"}, "work[0].on_crash = 'fail' cannot be used: name the column that says how"),
    (
        {"on_crash": "fail", "attempts": "n", "max_retries": "m", "failed": "todo"},
        "work[0].failed = 'todo' cannot be used: rows with this status are handed out or held",
    ),
    ({"where": {"status": "x"}}, "work[0].where = {'status': 'x'} cannot be used: status is in status: a condition"),
    ({"where": {"queue": []}}, "work[0].where = {'queue': []} cannot be used: queue has 0 values: name 1 to 100"),
    ({"where": {"n": 1.5}}, "work[0].where = {'n': 1.5} cannot be used: expected"),
    ({"where": {"q": "\0"}}, "work[0].where = {'q': '\\x00'} cannot be used: Postgres has no text with a NUL in it"),
    ({"where": "status = 'doing'"}, "work[0].where = \"status = 'doing'\" cannot be used: expected `object`"),
]
WRONG_REGISTRY: list[tuple[dict[str, Any], str]] = [
    ({"hartbeat": "b"}, "there is no setting registry.hartbeat (it is 'b'): did you mean heartbeat?"),
    ({"heartbeat": None}, "registry.heartbeat is missing: say which column holds the time of a worker's last"),
    ({"heartbeat": "name"}, "registry.heartbeat = 'name' cannot be used: name is the same column"),
    ({"up": ["ONLINE"]}, "registry.up = ['ONLINE'] cannot be used: there is no registry.status that could have it"),
    ({"status": "name"}, "registry.status = 'name' cannot be used: it says something else already"),
    ({"status": "s", "up": ["B"]}, "registry.up = ['B'] cannot be used: it lacks online ('ONLINE')"),
    (
        {"status": "s", "up": ["ONLINE", "OFFLINE"]},
        "registry.up = ['ONLINE', 'OFFLINE'] cannot be used: it has offline",
    ),
]


def said(**values: Any) -> str:
    """Return what is said of these settings, which is one line."""
    with pytest.raises(SettingsError) as error:
        load({}, **values)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(("changes", "line"), WRONG_WORK, ids=lambda value: str(value)[:40])
def test_a_wrong_table_of_work_is_answered_by_one_line(changes: dict[str, Any], line: str) -> None:
    """Which names the setting, the value and the fix."""
    assert said(work=[work(**changes)]).startswith(line)


@pytest.mark.parametrize(("changes", "line"), WRONG_REGISTRY, ids=lambda value: str(value)[:40])
def test_a_wrong_registry_is_answered_by_one_line(changes: dict[str, Any], line: str) -> None:
    """Likewise."""
    assert said(registry=registry(**changes)).startswith(line)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"work": []}, "work = [] cannot be used: describe each table under a [[work]] of its own"),
        ({"work": WORK}, f"work = {WORK!r} cannot be used: describe each table under a [[work]]"),
        ({"work": ["jobs"]}, "work[0] = 'jobs' cannot be used: write it as a table, under [[work]]"),
        ({"registry": "workers"}, "registry = 'workers' cannot be used: write it as a table, under [registry]"),
        ({"work": [work(), work(table="b")]}, "work[1].name = 'job' cannot be used: work[0] has it already"),
        (
            {"work": [work(), work(name="b", schema="public")]},
            "work[1].table = 'jobs' cannot be used: work[0] has it, too, and a row could be of both",
        ),
        (
            {"work": [work(where={"q": ["a", "b"]}), work(name="b", where={"q": "b"})]},
            "work[1].table = 'jobs' cannot be used: work[0] has it, too",
        ),
        ({"work": [work(table="workers")], "registry": registry()}, "work[0].table = 'workers' cannot be used"),
        ({"tables": {}}, "there is no setting tables"),
        ({"wrk": []}, "there is no setting wrk: did you mean work?"),
    ],
    ids=str,
)  # fmt: skip
def test_tables_that_do_not_go_together_are_answered_by_one_line(values: dict[str, Any], line: str) -> None:
    """As is what is no table at all."""
    assert said(**values).startswith(line)


def test_tables_are_no_setting_of_the_environment() -> None:
    """What would be ignored is refused."""
    with pytest.raises(SettingsError, match="LIVENESS_WORK cannot be used: tables are described in the file"):
        load({"LIVENESS_WORK": "[]"})


def test_tables_come_from_the_file(tmp_path: Path) -> None:
    """And all that they leave out has its default."""
    file = tmp_path / "liveness.toml"
    file.write_text(
        '[[work]]\nname = "job"\ntable = "jobs"\nowner = "worker"\nrunning = 1\nwaiting = 0\n'
        'where = { tenant = "x", queue = ["a", "b"] }\n',
        encoding="utf-8",
    )

    settings, _ = load({"LIVENESS_CONFIG": str(file)})

    (job,) = settings.tables.works
    assert (job.id, job.status, job.running, job.waiting, job.touched, job.setting) == (
        "id", "status", "1", "0", None, "work[0]",
    )  # fmt: skip
    assert job.given == ("x", ["a", "b"])
    assert settings.tables.registry == OWN_REGISTRY
    assert settings.registers


@pytest.mark.parametrize("block", re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL))
def test_what_the_page_shows_can_be_used(block: str) -> None:
    """Each example is a file of settings."""
    described = load({}, **tomllib.loads(block))[0].tables

    assert all(work.setting for work in described.works)


def test_the_page_names_every_setting() -> None:
    """Of both kinds of tables."""
    for kind in (WorkEntry, RegistryEntry):
        for field in kind.__struct_fields__:
            assert f"`{field}`" in PAGE, field


def test_without_tables_the_built_in_ones_serve() -> None:
    """And a registry of the host's may serve them, too."""
    assert Settings().tables.works == BUILT_IN
    assert not Settings().registers
    settings, _ = load({}, registry=registry())
    assert settings.tables.works == BUILT_IN
    assert (settings.tables.registry.table, settings.tables.registry.status) == ("workers", None)


# What the statements on the built-in tables are made of. Their plans, and every figure in the docs, rest on it.
PINNED = {
    "owned_by e.worker": 'w."worker_id" = e.worker',
    "owned_by_any $1::text[]": 'w."worker_id" = ANY ($1::text[])',
    "join_owners ended": 'JOIN ended AS e ON w."worker_id" = e.worker',
    "running $2": 'w."status" = $2',
    "with_status $2": 'w."status" = $2',
    "owner_name": 'w."worker_id"',
    "owner_first": "w.\"worker_id\" > ''",
    "owner_given": "w.\"worker_id\" <> ''",
    "owner_missing": '(w."worker_id" IS NULL OR w."worker_id" = \'\')',
    "owner_behind $7": 'w."worker_id" > $7',
    "untouched $2": 'w."updated_at" < now() - make_interval(secs => $2)',
    "walked_name": "n.owner",
    "walked_last": "max(n.owner)",
    "put_back": '"status" = $3, "worker_id" = NULL, "version" = w."version" + 1, "updated_at" = now()',
    "registry_owns": 'r."worker_name" = w."worker_id"',
    "registry_named e.worker": 'r."worker_name" = e.worker',
    "registry_named_any $1::text[]": 'r."worker_name" = ANY ($1::text[])',
    "registry_up $4": 'r."status"::text = ANY ($4::text[])',
    "registry_name": 'r."worker_name"',
    "registry_key": 'r."worker_name"',
    "offline": "$3",
    "register_columns": '"worker_name", "status", "last_heartbeat_at"',
    "register_values": "a.worker, $2, now()",
}


def test_the_built_in_tables_are_spoken_of_as_ever() -> None:
    """Word for word: neither casts nor subqueries stand between their statements and their indexes."""
    text = Column(type="text")
    columns = dict.fromkeys(("id", "status", "worker_id", "updated_at", "version", "worker_name"), text)
    works = [one.present(columns) for one in BUILT_IN]
    statements = Statements("public", Registry().present(columns), works)

    for place, wanted in PINNED.items():
        name, _, argument = place.partition(" ")
        part = statements._parts["workflow"][name]
        assert (part if isinstance(part, str) else part(argument)) == wanted, place
    assert all(statements.given(name, one) == () for name in ("reclaim_first", "find_orphans") for one in works)


@pytest.mark.parametrize("kind", ["bigint", "integer", "smallint", "uuid"])
def test_a_name_is_cast_and_never_the_column(kind: str) -> None:
    """So that the host's index serves, and a name that is no such value fails nothing."""
    assert as_key(kind, "e.worker").startswith("CASE WHEN e.worker ~ ")
    assert as_key(kind, "e.worker").endswith(" END")
    assert as_key("text", "e.worker") == "e.worker"


def test_given_values_are_numbered_behind_the_statement_s_own() -> None:
    """Whatever the identifiers look like: one that holds a dollar sign and a digit is none."""
    one = WorkTable(work="job", table='a$9"b', where=(), free_owner="0", owner="$8")

    text, values = numbered('SELECT "$9" = $2, \0job/1\0, \0job/0\0, \0job/1\0 -- $7', {"job": ["a", "b"]})

    assert (text, values) == ('SELECT "$9" = $2, $3, $4, $3 -- $7', ("b", "a"))
    assert one.given == ("0",)
