"""The parts of statements, rendered from the descriptions of the host's tables. Pure.

Identifiers from a description are always quoted, values are always parameters: nothing that a description says can
become SQL.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from liveness.work import TEXTS, Registry, WorkTable, quoted

# A part of a statement; or what makes one of a name's expression, as in `{owned_by e.worker}`.
Part: TypeAlias = str | Callable[[str], str]

_BOUNDS: Final = {"bigint": 2**63, "integer": 2**31, "smallint": 2**15}

# Characters of `kind` and `queue` that events show; no real one is longer.
SHOWN_LENGTH = 256

# As format_type writes it: `character varying(64)`, `numeric(10,2)`, `timestamp(3) with time zone`.
_LENGTH = re.compile(r"\(-?\d+(,-?\d+)?\)")
# `{name}`, or `{name expression}`.
_PLACE = re.compile(r"\{(\w+)(?: ([\w.$:\[\]]+))?\}")
# A value that is given to a statement besides its own parameters, until it has its number. No identifier holds a NUL.
_GIVEN = re.compile("\0([^/\0]+)/(\\d+)\0")
_NO_PARAMETERS = re.compile(r'--[^\n]*|"(?:[^"]|"")*"')
_PARAMETER = re.compile(r"\$(\d+)")


def rendered(statement: str, parts: Mapping[str, Part]) -> str:
    """Fill each `{name}` of a statement's text with the part of that name, which holds quoted identifiers only."""

    def part(place: re.Match[str]) -> str:
        found, argument = parts[place[1]], place[2]
        if isinstance(found, str):
            return found
        return found(argument)

    return _PLACE.sub(part, statement)


def numbered(statement: str, values: Mapping[str, Sequence[Any]]) -> tuple[str, tuple[Any, ...]]:
    """Number the values that `statement` is given behind its own parameters; return it, and them in their order."""
    own = max((int(number) for number in _PARAMETER.findall(_NO_PARAMETERS.sub("", statement))), default=0)
    order: dict[tuple[str, int], int] = {}

    def number(place: re.Match[str]) -> str:
        key = (place[1], int(place[2]))
        return f"${order.setdefault(key, own + len(order) + 1)}"

    text = _GIVEN.sub(number, statement)
    return text, tuple(values[work][index] for work, index in order)


def work_parts(work: WorkTable, schema: str, registry: Registry | None = None) -> dict[str, Part]:
    """Return the parts of a statement on `work`. The table is called `w` in the statements.

    `{put_back}` is the SET list: the waiting status stands as parameter $3 in every statement that uses it, and that of
    work whose attempts are used up as $9. `{set_aside}` is that of a quarantine, with its status as $3. `{running $2}`
    is the condition that a row is somebody's RUNNING work, `{owned_by x}` that it is work of the name x.
    """
    registry = registry or Registry()
    owner = f"w.{quoted(work.owner)}"
    free = f" AND {owner} <> {_free(work)}" if work.free_owner is not None else ""
    undated = work.touched is None

    def with_status(place: str) -> str:
        return f"w.{quoted(work.status)} = {place}{work.status_cast}{_where(work)}"

    parts: dict[str, Part] = {
        "work_table": _table(work, schema),
        "id": f"w.{quoted(work.id)}",
        "id_type": work.id_type,
        "id_base": _without_length(work.id_type),
        "status_shown": f"left(w.{quoted(work.status)}::text, {SHOWN_LENGTH})",
        "where": _where(work),
        "status_is": lambda place: f"w.{quoted(work.status)} = {place}{work.status_cast}",
        "with_status": with_status,
        "running": lambda place: with_status(place) + free,
        "touched": "NULL::timestamptz" if undated else f"w.{quoted(work.touched or '')}",
        "untouched": (
            (lambda seconds: f"{seconds}::double precision IS NOT NULL")
            if undated
            else (lambda seconds: f"w.{quoted(work.touched or '')} < now() - make_interval(secs => {seconds})")
        ),
        "kind": _shown(work.kind) if work.kind else "NULL::text",
        "queue": _shown(work.queue) if work.queue else "NULL::text",
        "put_back": _put_back(work),
        "set_aside": _set_aside(work),
        "owner": owner,
    }
    return parts | (_by_id if work.owner_is == "registry_id" else _by_name)(work, registry, schema)


def _by_name(work: WorkTable, registry: Registry, _schema: str) -> dict[str, Part]:
    owner, kind = f"w.{quoted(work.owner)}", work.owner_type
    is_text = kind in TEXTS
    free = f" OR {owner} = {_free(work)}" if work.free_owner is not None else ""
    name = owner if is_text else f"{owner}::text"
    same = kind == registry.name_type or (is_text and registry.name_type in TEXTS)
    return {
        "owner_name": name,
        "owned_by": lambda of: f"{owner} = {as_key(kind, of)}",
        "owned_by_any": lambda of: f"{owner} = {_any(kind, of)}",
        "join_owners": lambda of: f"JOIN {of} AS e ON {owner} = {as_key(kind, 'e.worker')}",
        "owner_given": f"{owner} <> ''" if is_text else f"{owner} IS NOT NULL",
        "owner_first": f"{owner} > ''" if is_text else f"{owner} IS NOT NULL",
        "owner_behind": lambda of: f"{owner} > {of}" if is_text else f"{owner} > {of}::text::{kind}",
        "owner_missing": f"({owner} IS NULL OR {owner} = ''{free})" if is_text else f"({owner} IS NULL{free})",
        "walked_name": "n.owner" if is_text else "n.owner::text",
        "walked_last": _last(kind),
        "registry_owns": f"r.{quoted(registry.name)} = {owner}" if same else _named(registry, "r", name),
    }


def _by_id(work: WorkTable, registry: Registry, schema: str) -> dict[str, Part]:
    owner, kind = f"w.{quoted(work.owner)}", work.owner_type
    table, key = _table(registry, schema), f"k.{quoted(registry.id)}"
    ids = f"(SELECT {key} FROM {table} AS k WHERE"  # noqa: S608 - quoted identifiers

    def name(of: str) -> str:
        return f"(SELECT k.{quoted(registry.name)}::text FROM {table} AS k WHERE {key} = {of})"  # noqa: S608 - quoted identifiers

    free = f" OR {owner} = {_free(work)}" if work.free_owner is not None else ""
    return {
        "owner_name": name(owner),
        "owned_by": lambda of: f"{owner} IN {ids} {_named(registry, 'k', of)})",
        "owned_by_any": lambda of: f"{owner} IN {ids} k.{quoted(registry.name)} = {_any(registry.name_type, of)})",
        # From the few that ended to their ids, and from those to the rows: each by an index.
        "join_owners": lambda of: (
            f"JOIN {table} AS k ON {key} = {owner} JOIN {of} AS e ON {_named(registry, 'k', 'e.worker')}"
        ),
        "owner_given": f"{owner} IS NOT NULL",
        "owner_first": f"{owner} IS NOT NULL",
        "owner_behind": lambda of: f"{owner} > {of}::text::{kind}",
        # Also whose registry row is gone: nobody can say whose they are.
        "owner_missing": f"({owner} IS NULL{free} OR NOT EXISTS (SELECT FROM {table} AS k WHERE {key} = {owner}))",
        "walked_name": name("n.owner"),
        "walked_last": _last(kind),
        "registry_owns": f"r.{quoted(registry.name)}::text = {name(owner)}",
    }


def registry_parts(registry: Registry, schema: str) -> dict[str, Part]:
    """Return the parts of a statement on the registry, which is called `r` in the statements."""
    key = f"r.{quoted(registry.name)}"
    heartbeat = f"r.{quoted(registry.heartbeat)}"
    name = key if registry.name_type in TEXTS else f"{key}::text"
    parts: dict[str, Part] = {
        "registry": _table(registry, schema),
        "registry_id": f"r.{quoted(registry.id)}",
        "registry_key": key,
        "registry_name": name,
        "registry_named": lambda of: _named(registry, "r", of),
        "registry_named_any": lambda of: f"{key} = {_any(registry.name_type, of)}",
        "registry_heartbeat": heartbeat,
        "set_heartbeat": quoted(registry.heartbeat),
        "set_id": quoted(registry.id),
    }
    if registry.status is None:
        return parts | {
            # What would else be marked is read from what we wrote down: the life has ended, and nobody beat since.
            "registry_up": lambda up: (
                f"({up}::text[] IS NOT NULL AND NOT EXISTS (SELECT FROM liveness.expiration AS up"
                f" WHERE up.worker = {name} AND up.recovered_at IS NULL AND NOT up.observed"
                f" AND up.reason <> 'restarted' AND up.expired_at > coalesce({heartbeat}, '-infinity')))"
            ),
            "register_columns": f"{quoted(registry.name)}, {quoted(registry.heartbeat)}",
            "register_values": "a.worker, now()",
        }
    online = "" if registry.status_type == "text" else f"::text::{registry.status_type}"
    return parts | {
        "registry_up": lambda up: f"r.{quoted(registry.status or '')}::text = ANY ({up}::text[])",
        "registry_status": f"r.{quoted(registry.status)}",
        "status_type": registry.status_type,
        "as_status": lambda place: place + registry.status_cast,
        "offline": f"$3{registry.status_cast}",
        "set_status": quoted(registry.status),
        "register_columns": f"{quoted(registry.name)}, {quoted(registry.status)}, {quoted(registry.heartbeat)}",
        "register_values": f"a.worker, $2{online}, now()",
    }


def as_key(kind: str, name: str) -> str:
    """Return the expression `name`, a text, as a value of the type `kind` that an index on such a column serves.

    A name that is none, or is not written as Postgres writes it, is NULL: it owns nothing, and fails no batch. "007"
    must not own what is the worker 7's.
    """
    if kind in TEXTS:
        return name
    if kind == "uuid":
        return f"CASE WHEN {name} ~ '^[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}$' THEN {name}::uuid END"
    bound = _BOUNDS[kind]
    return (
        f"CASE WHEN {name} ~ '^(0|-?[1-9][0-9]{{0,18}})$' THEN"
        f" CASE WHEN {name}::numeric BETWEEN {-bound} AND {bound - 1} THEN {name}::{kind} END END"
    )


def some_key(kind: str) -> str:
    """Return a name that may be one of the type `kind`."""
    return {"uuid": "00000000-0000-0000-0000-000000000000"}.get(kind, "" if kind in TEXTS else "0")


def _any(kind: str, names: str) -> str:
    if kind in TEXTS:
        return f"ANY ({names})"
    return f"ANY (ARRAY(SELECT {as_key(kind, 'a.name')} FROM unnest({names}::text[]) AS a (name)))"  # noqa: S608 - quoted identifiers


def _last(kind: str) -> str:
    # Not all versions of Postgres know the last of some UUIDs; that of their texts is none that lies behind it.
    return {"uuid": "max(n.owner::text)"}.get(kind, "max(n.owner)" if kind in TEXTS else "max(n.owner)::text")


def _named(registry: Registry, alias: str, name: str) -> str:
    return f"{alias}.{quoted(registry.name)} = {as_key(registry.name_type, name)}"


def _table(described: WorkTable | Registry, schema: str) -> str:
    return f"{quoted(described.schema or schema)}.{quoted(described.table)}"


def _given(work: WorkTable, index: int) -> str:
    return f"\0{work.work}/{index}\0"


def _free(work: WorkTable) -> str:
    cast = "::text" if work.owner_type in TEXTS else f"::text::{work.owner_type}"
    return _given(work, len(work.where)) + cast


def _where(work: WorkTable) -> str:
    conditions = []
    for index, where in enumerate(work.where):
        column, given = f"w.{quoted(where.column)}", _given(work, index)
        if len(where.values) == 1:
            conditions.append(f" AND {column} = {given}{where.cast}")
        else:
            # Of an enum, the parameter is of the column's own type.
            cast = "".join(f"::{each}[]" for each in where.cast.split("::")[1:])
            conditions.append(f" AND {column} = ANY ({given}{cast})")
    return "".join(conditions)


def _put_back(work: WorkTable) -> str:
    return ", ".join([*_tried(work), *_freed(work)])


def _set_aside(work: WorkTable) -> str:
    # A cast cuts it to what the column holds.
    told = [] if work.error is None else [f"{quoted(work.error)} = t.error::{work.error_type}"]
    return ", ".join([f"{quoted(work.status)} = $3{work.status_cast}", *_freed(work), *told])


def _freed(work: WorkTable) -> list[str]:
    changes = [f"{quoted(work.owner)} = {'NULL' if work.free_owner is None else _free(work)}"]
    changes += [f"{quoted(column)} = w.{quoted(column)} + 1" for column in work.bump]
    changes += [f"{quoted(column)} = now()" for column in work.touch]
    changes += [f"{quoted(column)} = NULL" for column in work.clear]
    return changes


def _tried(work: WorkTable) -> list[str]:
    """Return how status and attempts of a row change that goes back."""
    status = f"{quoted(work.status)} = $3{work.status_cast}"
    if work.on_crash == "put_back" or work.attempts is None:
        return [status]
    attempts = f"w.{quoted(work.attempts)} + t.crash::integer"
    if work.on_crash == "fail":
        enough = f">= w.{quoted(work.max_attempts)}" if work.max_attempts else f"> w.{quoted(work.max_retries or '')}"
        # A status of a type of its own is that in both; any other type is made of a text.
        cast = "" if work.status_cast or work.status_type in TEXTS else f"::{work.status_type}"
        status = (
            f"{quoted(work.status)} = CASE WHEN t.crash AND {attempts} {enough} THEN $9{cast} ELSE $3{cast} END"
            f"::{work.status_type}"
        )
    return [status, f"{quoted(work.attempts)} = {attempts}"]


def _without_length(kind: str) -> str:
    """Return a column's type without its length, to which a cast would cut, or round, what is compared with it."""
    base = _LENGTH.sub("", kind)
    # `character` alone is one of length 1.
    return "bpchar" if base == "character" else base


def _shown(column: str) -> str:
    # Cut, because what is in an event has to fit into a NATS message, and one that does not would hold up all others.
    return f"left(w.{quoted(column)}::text, {SHOWN_LENGTH})"
