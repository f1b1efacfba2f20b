"""What a table of work is: the ONE description that every statement on the host's tables is rendered from. Pure.

Identifiers from a description are always quoted, values are always parameters.
"""

import re
from collections.abc import Mapping

import msgspec


class WorkTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the host whose rows are work that a worker may hold.

    `work` is the word for its items in our own tables and in the events' subjects. The columns in `bump` grow by 1
    when a row goes back, those in `touch` become the current time, those in `clear` become NULL. `queue` and `kind`
    are shown in the events. All of these are optional columns: one that the table lacks is left out (`present`).
    """

    work: str
    table: str
    id: str = "id"
    status: str = "status"
    owner: str = "worker_id"
    running: str = "RUNNING"
    waiting: str = "PENDING"
    id_type: str = "uuid"
    queue: str | None = "queue"
    kind: str | None = "kind"
    bump: tuple[str, ...] = ("version",)
    touch: tuple[str, ...] = ("updated_at",)
    clear: tuple[str, ...] = ()

    @property
    def required(self) -> tuple[str, ...]:
        """The columns without which nothing can be reclaimed; the first of `touch` dates an orphan."""
        return (self.id, self.status, self.owner, *self.touch[:1])

    def present(self, columns: Mapping[str, str]) -> "WorkTable":
        """Return the description fitted to the table's real `columns` (name to type)."""
        return msgspec.structs.replace(
            self,
            id_type=columns[self.id],
            queue=self.queue if self.queue in columns else None,
            kind=self.kind if self.kind in columns else None,
            bump=tuple(column for column in self.bump if column in columns),
            touch=tuple(column for column in self.touch if column in columns),
            clear=tuple(column for column in self.clear if column in columns),
        )


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """The host's table of workers. A name is *up* while at least one of its rows has a status in `up`."""

    table: str = "worker"
    id: str = "id"
    name: str = "worker_name"
    status: str = "status"
    heartbeat: str = "last_heartbeat_at"
    online: str = "ONLINE"
    offline: str = "OFFLINE"
    degraded: str = "DEGRADED"
    up: tuple[str, ...] = ("ONLINE", "DEGRADED")
    status_type: str = "text"

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that the host's table must have."""
        return (self.id, self.name, self.status, self.heartbeat)

    def present(self, columns: Mapping[str, str]) -> "Registry":
        """Return the description fitted to the table's real `columns` (name to type)."""
        return msgspec.structs.replace(self, status_type=columns[self.status])


WORKFLOWS = WorkTable(work="workflow", table="workflow_execution")
TASKS = WorkTable(work="task", table="task_execution")
BUILT_IN = (WORKFLOWS, TASKS)


def quoted(identifier: str) -> str:
    """Return `identifier` as Postgres reads it literally, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'


# Characters of `kind` and `queue` that events show; no real one is longer.
SHOWN_LENGTH = 256

_PLACE = re.compile(r"\{(\w+)\}")


def rendered(statement: str, parts: Mapping[str, str]) -> str:
    """Fill each `{name}` of a statement's text with the part of that name, which holds quoted identifiers only."""
    return _PLACE.sub(lambda place: parts[place.group(1)], statement)


def work_parts(work: WorkTable, schema: str) -> dict[str, str]:
    """Return the parts of a statement on `work`. The table is called `w` in the statements.

    `{put_back}` is the SET list: the waiting status stands as parameter $3 in every statement that uses it.
    """
    changes = [f"{quoted(work.status)} = $3", f"{quoted(work.owner)} = NULL"]
    changes += [f"{quoted(column)} = w.{quoted(column)} + 1" for column in work.bump]
    changes += [f"{quoted(column)} = now()" for column in work.touch]
    changes += [f"{quoted(column)} = NULL" for column in work.clear]
    return {
        "work_table": f"{quoted(schema)}.{quoted(work.table)}",
        "id": f"w.{quoted(work.id)}",
        "id_type": work.id_type,
        "status": f"w.{quoted(work.status)}",
        "owner": f"w.{quoted(work.owner)}",
        "touched": f"w.{quoted(work.touch[0])}",
        "kind": _shown(work.kind) if work.kind else "NULL::text",
        "queue": _shown(work.queue) if work.queue else "NULL::text",
        "put_back": ", ".join(changes),
    }


def _shown(column: str) -> str:
    # Cut, because what is in an event has to fit into a NATS message, and one that does not would hold up all others.
    return f"left(w.{quoted(column)}::text, {SHOWN_LENGTH})"


def registry_parts(registry: Registry, schema: str) -> dict[str, str]:
    """Return the parts of a statement on the registry, which is called `r` in the statements."""
    return {
        "registry": f"{quoted(schema)}.{quoted(registry.table)}",
        "registry_id": f"r.{quoted(registry.id)}",
        "registry_name": f"r.{quoted(registry.name)}",
        "status_type": registry.status_type,
        "registry_status": f"r.{quoted(registry.status)}",
        "registry_heartbeat": f"r.{quoted(registry.heartbeat)}",
        "set_status": quoted(registry.status),
        "set_heartbeat": quoted(registry.heartbeat),
        "set_name": quoted(registry.name),
        "set_id": quoted(registry.id),
    }
