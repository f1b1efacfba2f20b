"""Which rights our role needs on the host's tables, column by column, and what it has beyond them. Pure.

A right on a column is enough everywhere: to lock a row is allowed to whoever may change any column of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from liveness.findings import Finding, Weight
from liveness.settings import Settings
from liveness.work import Registry, WorkTable, quoted

# A privilege, and the columns that it is about.
Rights: TypeAlias = Mapping[str, Sequence[str]]

# Which transaction wrote a row, a column that every table has: by it, what was changed since is told from what was not.
MARK: Final = "xmin"
SCRIPT: Final = "log in as a role that may do just what is needed: deploy/postgres/role.sql (docs/postgres.md)"
# What may be done with a whole table, and is never needed of the host's.
NEVER_NEEDED: Final = ("DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN")
# What is needed of our own tables.
OF_OURS: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
ATTRIBUTES: Final = {
    "superuser": ("is a superuser", "NOSUPERUSER"),
    "makes_roles": ("may make roles, and give itself what they may", "NOCREATEROLE"),
    "makes_databases": ("may make databases", "NOCREATEDB"),
    "replicates": ("may read everything as a standby does", "NOREPLICATION"),
    "bypasses": ("passes by the policies of rows (row-level security)", "NOBYPASSRLS"),
}
_TOO_WIDE: Final = "whoever gets hold of its login, or of a fault of the service, may do as much"


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """What `role` may do with `table` (quoted, with its schema `space`); `called` is how a person knows it.

    `columns`: those that each privilege covers; `whole`: those of NEVER_NEEDED that it has. `creates`: anything, in the
    table's schema.
    """

    role: str
    called: str
    table: str
    space: str
    uses: bool
    creates: bool
    owns: bool
    columns: Mapping[str, frozenset[str]]
    whole: tuple[str, ...]

    def missing(self, needed: Rights) -> Rights:
        """Return what is needed and not allowed."""
        found = {
            privilege: [column for column in columns if column not in self.columns[privilege]]
            for privilege, columns in needed.items()
        }
        return {privilege: columns for privilege, columns in found.items() if columns}

    def beyond(self, needed: Rights) -> Rights:
        """Return what is allowed and not needed; without columns what concerns the whole table."""
        found = {
            privilege: sorted(columns - set(needed.get(privilege, ())) - {MARK})
            for privilege, columns in self.columns.items()
        }
        return {privilege: columns for privilege, columns in found.items() if columns} | dict.fromkeys(self.whole, ())

    def refused(self, needed: Rights) -> str | None:
        """Return what it may not do that is needed, in one line with the GRANT that is missing."""
        if not self.uses:
            return f"{self._may_not_use()}: {self._use()}"
        if missing := self.missing(needed):
            return f"{self._may_not(missing)}: {self._grant(missing)}"
        return None

    def findings(self, needed: Rights) -> list[Finding]:
        """Return what `refused` would say, and what is allowed beyond what is needed."""
        found, missing = [], self.missing(needed)
        if not self.uses:
            found.append(_missing(self.role, self._may_not_use(), self._use()))
        if missing:
            found.append(_missing(self.role, self._may_not(missing), self._grant(missing)))
        if self.owns:
            found.append(_wide(self.called, f"our role {self.role} owns it, and may drop it", SCRIPT))
        elif beyond := self.beyond(needed):
            role = quoted(self.role)
            found.append(
                _wide(
                    self.called,
                    f"our role {self.role} may do more than it needs to: {_listed(beyond)}",
                    "take that back; what it has as a member of others, or as everybody (PUBLIC), is to be taken there",
                    f"REVOKE ALL ON {self.table} FROM {role};",
                    self._grant(needed),
                )
            )
        return found

    def _may_not_use(self) -> str:
        return f"the role {self.role} may not use the schema {self.space}"

    def _use(self) -> str:
        return f"GRANT USAGE ON SCHEMA {quoted(self.space)} TO {quoted(self.role)};"

    def _may_not(self, missing: Rights) -> str:
        # Of what it may not do with any column, these are not the point.
        said = [
            f"{privilege} {', '.join(columns)}" if self.columns[privilege] - {MARK} else privilege
            for privilege, columns in missing.items()
        ]
        return f"the role {self.role} may not {' or '.join(said)} in {self.called}"

    def _grant(self, rights: Rights) -> str:
        listed = (f"{privilege} ({', '.join(map(quoted, columns))})" for privilege, columns in rights.items())
        return f"GRANT {', '.join(listed)} ON {self.table} TO {quoted(self.role)};"


def of_work(work: WorkTable, settings: Settings) -> Rights:
    """Return what is needed of a table of work, whose optional columns are those that are there (`present`)."""
    counts = tuple(filter(None, (work.attempts, work.max_attempts, work.max_retries)))
    read = [
        *(work.id, work.status, work.owner, work.touched, work.queue, work.kind),
        *(where.column for where in work.where),
        *counts,
        MARK,
    ]
    written = [work.status, work.owner, *work.bump, *work.touch, *work.clear]
    if work.attempts and work.on_crash != "put_back":
        written.append(work.attempts)
    if work.error and settings.quarantine_of(work) is not None:
        written.append(work.error)
    if settings.mode != "act":
        return {"SELECT": _distinct(read)}
    return {"SELECT": _distinct([*read, *work.bump]), "UPDATE": _distinct(written)}


def of_registry(registry: Registry, settings: Settings) -> Rights:
    """Return what is needed of the table of workers."""
    needed = {"SELECT": _distinct([registry.id, registry.name, registry.status, registry.heartbeat])}
    if settings.mode != "act":
        return needed
    if written := _distinct([registry.status, registry.heartbeat if settings.checkpoint_interval else None]):
        needed["UPDATE"] = written
    if settings.registers:
        needed["INSERT"] = _distinct([registry.name, registry.status, registry.heartbeat])
    return needed


def of_schema(role: str, missing: Mapping[str, str], *, uses: bool) -> list[Finding]:
    """Return what `role` may not do in our own schema: `missing` says which privileges, by table."""
    if not uses:
        says = f"the role {role} may not use the schema liveness"
        return [_missing(role, says, f"GRANT USAGE ON SCHEMA liveness TO {quoted(role)};")]
    # One grant is for all of them.
    return [
        _missing(
            role,
            f"the role {role} may not {privileges} in liveness.{table}",
            f"GRANT {', '.join(OF_OURS)} ON ALL TABLES IN SCHEMA liveness TO {quoted(role)};",
        )
        for table, privileges in list(missing.items())[:1]
    ]


def of_role(role: str, has: Mapping[str, bool]) -> list[Finding]:
    """Return what `role` may do everywhere, and which it does not need: attributes by the names in `ATTRIBUTES`."""
    return [
        _wide(f"role {role}", says, SCRIPT, *([] if has["superuser"] else [f"ALTER ROLE {quoted(role)} {cure};"]))
        for name, (says, cure) in ATTRIBUTES.items()
        # A superuser may do all the rest.
        if has[name] and (name == "superuser" or not has["superuser"])
    ]


def of_creation(role: str, spaces: Iterable[str]) -> list[Finding]:
    """Return that `role` may make tables and functions in schemas of the host's."""
    return [
        _wide(
            f"schema {space}",
            f"our role {role} may make things in it",
            "take that back; a function that is put in the host's way there is run by the host",
            f"REVOKE CREATE ON SCHEMA {quoted(space)} FROM PUBLIC, {quoted(role)};",
        )
        for space in _distinct(spaces)
    ]


def _missing(role: str, says: str, statement: str) -> Finding:
    return Finding(
        check="privileges",
        weight=Weight.BROKEN,
        about=f"role {role}",
        says=says,
        why="liveness serve does not start with it, or cannot do its duty",
        fix="grant it",
        statements=(statement,),
    )


def _wide(about: str, says: str, fix: str, *statements: str) -> Finding:
    return Finding(
        check="privileges",
        weight=Weight.BETTER,
        about=about,
        says=says,
        why=_TOO_WIDE,
        fix=fix,
        statements=statements,
    )


def _listed(rights: Rights) -> str:
    return "; ".join(f"{privilege} {', '.join(columns)}".rstrip() for privilege, columns in rights.items())


def _distinct(columns: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(column for column in columns if column is not None))
