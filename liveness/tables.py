"""What the settings say of the host's tables: `[[work]]` and `[registry]` of the TOML file. Pure.

What can be told without the database is checked here, the rest against the catalogue at start (`store/fitting.py`).
Every complaint is one line that names the setting, its value and the fix.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final, Literal

import msgspec

from liveness.errors import SettingsError
from liveness.work import BUILT_IN, OWN_REGISTRY, Registry, Where, WorkTable

# Of an identifier, in bytes: Postgres cuts what is longer, and would find another one.
MOST_IDENTIFIER_BYTES: Final = 63
# It is a token of the events' subjects, and with `_id` behind it a key of their data.
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
# First tokens of subjects that are taken: `worker.expired`, `liveness.storm`, and where mode observe puts its events.
_RESERVED: Final = frozenset({"worker", "liveness", "observed"})
# Values of a column that one condition names at most.
MOST_VALUES: Final = 100

Value = str | int


class WorkEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[work]]`: a table of the host whose rows are work."""

    name: str
    table: str
    owner: str
    running: Value
    waiting: Value
    schema: str | None = None
    id: str = "id"
    status: str = "status"
    owner_is: Literal["name", "registry_id"] = "name"
    free_owner: Value | None = None
    queue: str | None = None
    kind: str | None = None
    touched: str | None = None
    bump: tuple[str, ...] = ()
    touch: tuple[str, ...] = ()
    clear: tuple[str, ...] = ()
    where: dict[str, Value | bool | tuple[Value, ...]] = {}
    quarantine: Value | None = None
    error: str | None = None
    on_crash: Literal["put_back", "count", "fail"] = "put_back"
    attempts: str | None = None
    max_attempts: str | None = None
    max_retries: str | None = None
    failed: Value | None = None


class RegistryEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[registry]`: the host's table of workers."""

    table: str
    name: str
    heartbeat: str
    schema: str | None = None
    id: str = "id"
    status: str | None = None
    online: str | None = None
    offline: str | None = None
    degraded: str | None = None
    up: tuple[str, ...] | None = None


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """The host's tables: those of work, and the registry. `own_registry`: it is ours, and every worker gets a row."""

    works: tuple[WorkTable, ...] = BUILT_IN
    registry: Registry = Registry()

    @property
    def own_registry(self) -> bool:
        """Whether the registry is ours, because the host has none."""
        return self.registry == OWN_REGISTRY


def tables(work: object, registry: object, schema: str) -> Tables:
    """Return the tables that the settings `work` and `registry` describe; None: not there. `schema`: the default.

    Raises SettingsError.
    """
    if work is None and registry is None:
        return Tables(works=BUILT_IN)
    described = Registry() if work is None else OWN_REGISTRY
    if registry is not None:
        described = _registry(_entry(RegistryEntry, registry, "registry"))
    if work is None:
        return Tables(works=BUILT_IN, registry=described)
    if not isinstance(work, list) or not work:
        raise SettingsError(f"work = {work!r} cannot be used: describe each table under a [[work]] of its own")
    works = [
        _work(_entry(WorkEntry, entry, f"work[{index}]"), f"work[{index}]", with_registry=registry is not None)
        for index, entry in enumerate(work)
    ]
    _check_together(works, described, schema)
    return Tables(works=tuple(works), registry=described)


def _entry(kind: type[Any], values: object, setting: str) -> Any:
    if not isinstance(values, dict):
        header = "[[work]]" if kind is WorkEntry else "[registry]"
        raise SettingsError(f"{setting} = {values!r} cannot be used: write it as a table, under {header}")
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise SettingsError(_explain(str(error), kind, values, setting)) from error


def _explain(text: str, kind: type[Any], values: Mapping[str, Any], setting: str) -> str:
    if "unknown field" in text:
        unknown = text.split("`")[1]
        fields = kind.__struct_fields__
        close = difflib.get_close_matches(unknown, fields, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(fields)}"
        return f"there is no setting {setting}.{unknown} (it is {values.get(unknown)!r}): {hint}"
    if "missing required field" in text:
        missing = text.split("`")[1]
        return f"{setting}.{missing} is missing: say {_WHAT[missing]}"
    complaint, _, place = text.partition(" - at `$.")
    name = re.split(r"[.\[`]", place)[0] if place else "where"
    return f"{setting}.{name} = {values.get(name)!r} cannot be used: {complaint[0].lower()}{complaint[1:]}"


_WHAT: Final = {
    "name": "what one piece of this work is called, as in the event job.reclaimed",
    "table": "what the table is called",
    "owner": "which column says who holds a row",
    "running": "which status a row has while somebody holds it",
    "waiting": "which status a row has that anybody may claim",
    "heartbeat": "which column holds the time of a worker's last heartbeat",
}


class _Checks:
    """Complaints about one entry."""

    def __init__(self, entry: WorkEntry | RegistryEntry, setting: str) -> None:
        self._entry = entry
        self._setting = setting

    def wrong(self, field: str, fix: str, value: object = None) -> SettingsError:
        shown = getattr(self._entry, field) if value is None else value
        return SettingsError(f"{self._setting}.{field} = {_shown(shown)} cannot be used: {fix}")

    def identifiers(self, *fields: str) -> None:
        for field in fields:
            value = getattr(self._entry, field)
            for name in (value,) if isinstance(value, str) else value or ():
                if not name:
                    raise self.wrong(field, "a name in Postgres is not empty; leave the setting out if there is none")
                if "\0" in name or not name.isprintable():
                    raise self.wrong(field, "it holds a control character, which no name should")
                if len(name.encode()) > MOST_IDENTIFIER_BYTES:
                    raise self.wrong(field, f"a name in Postgres has at most {MOST_IDENTIFIER_BYTES} bytes")

    def values(self, *fields: str) -> None:
        for field in fields:
            value = getattr(self._entry, field)
            for one in value if isinstance(value, tuple) else (value,):
                if isinstance(one, str) and "\0" in one:
                    raise self.wrong(field, "Postgres has no text with a NUL in it")
                if one == "" and field != "free_owner":
                    raise self.wrong(field, "it is empty: say the value that the column has")


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return repr({key: list(one) if isinstance(one, tuple) else one for key, one in value.items()})
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def _work(entry: WorkEntry, setting: str, *, with_registry: bool) -> WorkTable:
    checks = _Checks(entry, setting)
    if not entry.name:
        raise checks.wrong("name", f"it is empty: say {_WHAT['name']}")
    if not _NAME.fullmatch(entry.name):
        raise checks.wrong(
            "name", "it is part of subjects and keys: use a letter, then letters, digits, - or _, 63 at most"
        )
    if entry.name in _RESERVED:
        raise checks.wrong("name", f"{entry.name}.* are events of the service's own: choose another word")
    checks.identifiers("schema", "table", "id", "status", "owner", "queue", "kind", "touched", "bump", "touch", "clear")
    checks.identifiers("error", "attempts", "max_attempts", "max_retries")
    checks.values("running", "waiting", "free_owner", "quarantine", "failed")
    if str(entry.running) == str(entry.waiting):
        raise checks.wrong("waiting", f"running is the same, so nothing would ever go back: say {_WHAT['waiting']}")
    if entry.owner_is == "registry_id" and not with_registry:
        raise checks.wrong("owner_is", "there is no [registry] whose ids it could be: describe it, or use 'name'")
    _check_columns(entry, checks)
    _check_attempts(entry, checks)
    return WorkTable(
        work=entry.name,
        table=entry.table,
        schema=entry.schema,
        id=entry.id,
        status=entry.status,
        owner=entry.owner,
        owner_is=entry.owner_is,
        running=str(entry.running),
        waiting=str(entry.waiting),
        free_owner=None if entry.free_owner is None else str(entry.free_owner),
        queue=entry.queue,
        kind=entry.kind,
        touched=entry.touched,
        bump=entry.bump,
        touch=entry.touch,
        clear=entry.clear,
        quarantine=None if entry.quarantine is None else str(entry.quarantine),
        error=entry.error,
        on_crash=entry.on_crash,
        attempts=entry.attempts,
        max_attempts=entry.max_attempts,
        max_retries=entry.max_retries,
        failed=None if entry.failed is None else str(entry.failed),
        where=tuple(Where(column=column, values=_values(value)) for column, value in entry.where.items()),
        setting=setting,
    )


def _values(value: bool | Value | tuple[Value, ...]) -> tuple[str, ...]:  # noqa: FBT001 - a value of the file
    if isinstance(value, bool):
        return ("true" if value else "false",)
    return tuple(str(one) for one in value) if isinstance(value, tuple) else (str(value),)


def _check_columns(entry: WorkEntry, checks: _Checks) -> None:
    fixed = {"id": entry.id, "status": entry.status, "owner": entry.owner}
    for first, second in combinations(fixed, 2):
        if fixed[first] == fixed[second]:
            raise checks.wrong(second, f"{first} is the same column: each needs one of its own")
    changed = {column: field for field, column in fixed.items()}
    for field in ("bump", "touch", "clear", "error", "attempts"):
        value = getattr(entry, field)
        for column in (value,) if isinstance(value, str) else value or ():
            if column in changed:
                raise checks.wrong(field, f"{column} is in {changed[column]} already: a column is changed in one way")
            changed[column] = field
    if entry.touched in {entry.status, entry.owner}:
        raise checks.wrong(
            "touched", "it says something else already: name the column with the time of the last change"
        )
    for column in entry.where:
        if column in changed:
            raise checks.wrong(
                "where", f"{column} is in {changed[column]}: a condition may only name what a reclaim leaves as it is"
            )
        _check_condition(column, entry, checks)


def _check_attempts(entry: WorkEntry, checks: _Checks) -> None:
    if entry.on_crash == "put_back":
        for field in ("attempts", "max_attempts", "max_retries", "failed"):
            if getattr(entry, field) is not None:
                raise checks.wrong(field, "on_crash is 'put_back', which counts nothing: use 'count' or 'fail'")
        return
    if entry.attempts is None:
        raise checks.wrong("on_crash", "there is no column that counts: name it as attempts")
    if entry.on_crash != "fail":
        return
    if (entry.max_attempts is None) == (entry.max_retries is None):
        raise checks.wrong("on_crash", "name the column that says how many are too many: max_attempts, or max_retries")
    if entry.failed is None:
        raise checks.wrong("on_crash", "say which status a row has that has no attempt left: failed")
    if str(entry.failed) in {str(entry.running), str(entry.waiting)}:
        raise checks.wrong("failed", "rows with this status are handed out or held: say the one that ends it")


def _check_condition(column: str, entry: WorkEntry, checks: _Checks) -> None:
    value = entry.where[column]
    if not column or not column.isprintable() or len(column.encode()) > MOST_IDENTIFIER_BYTES:
        raise checks.wrong("where", f"{column!r} is no column's name")
    if isinstance(value, tuple) and not 0 < len(value) <= MOST_VALUES:
        raise checks.wrong("where", f"{column} has {len(value)} values: name 1 to {MOST_VALUES}")
    if any("\0" in one for one in _values(value)):
        raise checks.wrong("where", "Postgres has no text with a NUL in it")


def _registry(entry: RegistryEntry) -> Registry:
    checks = _Checks(entry, "registry")
    checks.identifiers("schema", "table", "id", "name", "heartbeat", "status")
    checks.values("online", "offline", "degraded", "up")
    for field in ("name", "status"):
        if getattr(entry, field) == entry.heartbeat:
            raise checks.wrong("heartbeat", f"{field} is the same column: name the time of the last heartbeat")
    if entry.status is None:
        for field in ("online", "offline", "degraded", "up"):
            if getattr(entry, field) is not None:
                raise checks.wrong(
                    field, "there is no registry.status that could have it: name that column, or drop this"
                )
        return Registry(
            table=entry.table, schema=entry.schema, id=entry.id, name=entry.name, status=None,
            heartbeat=entry.heartbeat, degraded=None, up=(), setting="registry",
        )  # fmt: skip
    if entry.status in {entry.id, entry.name}:
        raise checks.wrong("status", "it says something else already: name the column with the worker's status")
    online = entry.online or Registry().online
    offline = entry.offline or Registry().offline
    up = tuple(filter(None, (online, entry.degraded))) if entry.up is None else entry.up
    if online not in up:
        raise checks.wrong("up", f"it lacks online ({online!r}): who is registered as that is up", list(up))
    if offline in up:
        raise checks.wrong("up", f"it has offline ({offline!r}) in it: who is marked as that is not up", list(up))
    if entry.degraded is not None and (entry.degraded == online or entry.degraded not in up):
        raise checks.wrong(
            "degraded", f"a suspect is up and not {online!r}: put that status of its own into registry.up"
        )
    return Registry(
        table=entry.table, schema=entry.schema, id=entry.id, name=entry.name, status=entry.status,
        heartbeat=entry.heartbeat, online=online, offline=offline, degraded=entry.degraded, up=up, setting="registry",
    )  # fmt: skip


def _check_together(works: Sequence[WorkTable], registry: Registry, schema: str) -> None:
    for work in works:
        if (work.schema or schema, work.table) == (registry.schema or schema, registry.table):
            raise SettingsError(f"{work.setting}.table = {work.table!r} cannot be used: it is the registry, too")
    for former, work in combinations(works, 2):
        if former.work == work.work:
            raise SettingsError(
                f"{work.setting}.name = {work.work!r} cannot be used: {former.setting} has it already, and their "
                "events would be the same: choose another word"
            )
        same = (former.schema or schema, former.table) == (work.schema or schema, work.table)
        if same and not _disjoint(former, work):
            raise SettingsError(
                f"{work.setting}.table = {work.table!r} cannot be used: {former.setting} has it, too, and a row could "
                "be of both: give both a where on the same column, with different values"
            )


def _disjoint(one: WorkTable, other: WorkTable) -> bool:
    """Say whether no row can be work of both."""
    values = {where.column: set(where.values) for where in one.where}
    return any(values.get(where.column, set(where.values)).isdisjoint(where.values) for where in other.where)
