"""The named statements of `liveness/sql`, rendered for one host: its schema, registry and work tables.

One statement a file; its header says what it does and what its parameters are. `part_*.sql` are parts of others.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from liveness.parts import Part, numbered, registry_parts, rendered, work_parts
from liveness.share import Share
from liveness.subjects import Subjects
from liveness.work import Registry, WorkTable, quoted


@cache
def statement_text(name: str) -> str:
    """Return the text of `liveness/sql/<name>.sql`, without rendering."""
    return (resources.files("liveness") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


# What a session that acts for a share holds, so that pg_locks shows whom it acts for: a word of ours, and the share.
_ACTS = 6_155_231
_ACTS_FOR_A_SHARE = f"l.locktype = 'advisory' AND l.classid = {_ACTS} AND l.objsubid = 2"
# More than there can be shares (`Share`).
_COUNT = 2048
# Of all statements here, only FOR KEY SHARE takes it for longer than moments: whoever acts.
_ACTS_FOR_EVERYBODY = "l.locktype = 'relation' AND l.relation = 'liveness.leader'::regclass AND l.mode = 'RowShareLock'"


def leader_parts(share: Share | None) -> Mapping[str, str]:
    """Return the parts of statements that concern the leader of `share`, or of everybody."""
    if share is None:
        return {
            "leader": "liveness.leader",
            "of_share": "true",
            "shares": "0",
            "seen_in_locks": "",
            "acts_in_locks": _ACTS_FOR_EVERYBODY,
            "others_act_in_locks": _ACTS_FOR_A_SHARE,
        }
    number = share.count * _COUNT + share.index
    return {
        "leader": "liveness.share_leader",
        "of_share": f"share = '{share}'",
        "shares": str(share.count),
        "seen_in_locks": f", pg_advisory_xact_lock_shared({_ACTS}, {number})",
        "acts_in_locks": f"{_ACTS_FOR_A_SHARE} AND l.objid = {number}",
        "others_act_in_locks": f"{_ACTS_FOR_EVERYBODY}"
        f" OR {_ACTS_FOR_A_SHARE} AND l.objid::bigint / {_COUNT} <> {share.count}",
    }


def leader_statement(name: str, share: Share | None) -> str:
    """Return the statement `name` about the leader of `share`, or of everybody."""
    return rendered(statement_text(name), leader_parts(share))


def _share_parts(subjects: Subjects) -> Mapping[str, str]:
    share = subjects.share
    of_epoch = (
        ""
        if share is None
        else "AND EXISTS (SELECT FROM liveness.epoch AS e"
        f" WHERE e.worker = u.worker AND e.epoch = u.epoch AND {_ours(subjects, 'e.hash')})"
    )
    return {**leader_parts(share), "ours": _ours(subjects, "hash"), "unfinished_and_ours": of_epoch}


def _ours(subjects: Subjects, kept: str) -> str:
    """Return the condition that a row with the hash `kept` may be of our share.

    Rows without one, or with one by another prefix, are everybody's, and told by their names when they are here.
    """
    share = subjects.share
    if share is None:
        return "true"
    return (
        f"({kept} IS NULL OR {kept} >> 32 <> {subjects.mark} OR ({kept} & 4294967295) % {share.count} = {share.index})"
    )


UNDIVIDED = Subjects()


class Statements:
    """Statements by name; those on a work table by name and kind of work.

    Where the tables' descriptions hold values, a statement takes them as parameters behind its own (`given`).
    """

    def __init__(
        self, schema: str, registry: Registry, works: Sequence[WorkTable], subjects: Subjects = UNDIVIDED
    ) -> None:
        self.registry = registry
        self.works = tuple(works)
        self._schema = schema
        self._given = {work.work: work.given for work in works}
        self._common: Mapping[str, Part] = {
            **registry_parts(registry, schema),
            **_share_parts(subjects),
            "or_holds_work": self._for_each("part_or_holds_work"),
            "union_owners": self._for_each("part_union_owners"),
            "why_life": self._part("why_life", {}),
        }
        self._parts = {work.work: {**self._common, **work_parts(work, schema, registry)} for work in works}
        # Where no worker is marked, nothing of the registry is locked. Two kinds of work may share a table.
        tables = {} if registry.status is None else {str(self._common["registry"]): quoted(registry.status)}
        tables |= {str(self._parts[work.work]["work_table"]): quoted(work.status) for work in works}
        # The lock that an UPDATE takes, by an EXPLAIN of one, which carries out nothing, no trigger either: LOCK TABLE
        # would need the right to change all columns. What waits behind it is a trigger of the host's, for a lock of the
        # host's: for so short that Postgres does not come to look for a deadlock (1 s) and end the host's side.
        locks = "".join(
            f"EXPLAIN UPDATE {table} SET {column} = {column}; "  # noqa: S608 - quoted identifiers
            for table, column in tables.items()
        )
        self.lock_tables = f"SET LOCAL lock_timeout = '1ms'; {locks}SET LOCAL lock_timeout = '200ms'"
        self._rendered: dict[tuple[str, str, bool], tuple[str, tuple[Any, ...]]] = {}

    def __getitem__(self, name: str) -> str:
        """Return the statement `name`, which concerns no single work table."""
        return self._get(name, "", observed=False)[0]

    def on(self, work: WorkTable, name: str, *, observed: bool = False) -> str:
        """Return the statement `name` on `work`; `observed`: the variant that leaves the host's rows as they are."""
        return self._get(name, work.work, observed=observed)[0]

    def given(self, name: str, work: WorkTable | None = None, *, observed: bool = False) -> tuple[Any, ...]:
        """Return what the statement `name` takes behind its own parameters: values of the tables' descriptions."""
        return self._get(name, work.work if work else "", observed=observed)[1]

    def table(self, work: WorkTable) -> str:
        """Return where `work` is, as an error shows it."""
        return f"{work.schema or self._schema}.{work.table}"

    def _for_each(self, part: str) -> str:
        # The first parameter is the statement's own; each table's running status follows.
        found = []
        for place, work in enumerate(self.works, start=2):
            parts = work_parts(work, self._schema, self.registry)
            found.append(rendered(statement_text(part).replace("{running_here}", f"{{running ${place}}}"), parts))
        return " ".join(found)

    def _get(self, name: str, work: str, *, observed: bool) -> tuple[str, tuple[Any, ...]]:
        key = (name, work, observed)
        if key not in self._rendered:
            parts: dict[str, Part] = dict(self._parts[work] if work else self._common)
            # The same statement, on one row that was refused before.
            text = statement_text("reclaim_next" if name == "reclaim_refused" else name)
            parts["remainder_from"] = "remainder_at" if name == "reclaim_refused" else "remainder_behind"
            parts["lock"] = "" if observed else "FOR UPDATE OF w SKIP LOCKED"
            parts["ended"] = self._part("ended", parts)
            if work:
                parts["unless_observed"] = self._part("unless_observed", parts) if observed else ""
                parts["moved"] = self._part("moved_observe" if observed else "moved_act", parts)
                for part in ("of_that_life", "recorded", "leaked"):
                    parts[part] = self._part(part, parts)
            self._rendered[key] = numbered(rendered(text, parts), self._given)
        return self._rendered[key]

    @staticmethod
    def _part(name: str, parts: Mapping[str, Part]) -> str:
        return rendered(statement_text(f"part_{name}"), parts).rstrip()
