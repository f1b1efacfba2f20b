"""What a table of work is: the ONE description that every statement on the host's tables is rendered from. Pure."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

# Types by which owners and names are told, as they compare. Of all others two texts may mean the same.
TEXTS: Final = frozenset({"text", "character varying"})
KEYS: Final = TEXTS | {"uuid", "bigint", "integer", "smallint"}
# Types of ids that a worker and Postgres write alike, but for case, hyphens and white space.
LISTED: Final = KEYS | {"character"}


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column as the catalogue has it. `base`: its type without domain and length; `enum`: it has labels."""

    type: str
    base: str = "text"
    enum: bool = False

    @property
    def parameter(self) -> str:
        """How a text becomes a value of it: an empty cast where the parameter is of the column's own type."""
        return "" if self.enum or self.base in TEXTS else f"::text::{self.type}"


class Where(msgspec.Struct, frozen=True, kw_only=True):
    """A condition on the rows of a table that are work: `column` has one of `values`. `cast`: as of `Column`."""

    column: str
    values: tuple[str, ...]
    cast: str = ""


class CrashPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How many crashes a piece of work may cause: `budget` (0: any number) within `window` seconds."""

    budget: int = 3
    window: float = 86_400.0


class WorkTable(msgspec.Struct, frozen=True, kw_only=True):
    """A table of the host whose rows are work that a worker may hold.

    `work` is the word for its items in our own tables and in the events' subjects. The columns in `bump` grow by 1
    when a row goes back, those in `touch` become the current time, those in `clear` become NULL. `touched` dates a row:
    without it, nothing is taken because it is old. `queue` and `kind` are shown in the events. All of these are
    optional columns; one that a built-in table lacks is left out (`present`).

    The owner is the worker's name, or the id of a row of that name in the registry. One that is nobody's is NULL, or
    `free_owner`. `setting` is where the settings describe the table, empty for a built-in one.

    `quarantine` is the status of work that keeps killing its workers, or None: it goes back. `error` is the column that
    tells why then. `attempts` counts how often a row was tried: a crash leaves it alone (`put_back`), adds 1 (`count`),
    or adds 1 and, where that makes `max_attempts`, or more than `max_retries`, gives the row the status `failed`
    (`fail`).
    """

    work: str
    table: str
    schema: str | None = None
    id: str = "id"
    status: str = "status"
    owner: str = "worker_id"
    owner_is: Literal["name", "registry_id"] = "name"
    running: str = "RUNNING"
    waiting: str = "PENDING"
    free_owner: str | None = None
    queue: str | None = "queue"
    kind: str | None = "kind"
    touched: str | None = "updated_at"
    bump: tuple[str, ...] = ("version",)
    touch: tuple[str, ...] = ("updated_at",)
    clear: tuple[str, ...] = ()
    where: tuple[Where, ...] = ()
    quarantine: str | None = None
    error: str | None = None
    on_crash: Literal["put_back", "count", "fail"] = "put_back"
    attempts: str | None = None
    max_attempts: str | None = None
    max_retries: str | None = None
    failed: str | None = None
    setting: str = ""
    # What the catalogue says.
    id_type: str = "uuid"
    id_base: str = "uuid"
    owner_type: str = "text"
    status_type: str = "text"
    status_cast: str = ""
    error_type: str = "text"

    @property
    def required(self) -> tuple[str, ...]:
        """The columns without which nothing can be reclaimed."""
        return (self.id, self.status, self.owner, *((self.touched,) if self.touched else ()))

    @property
    def given(self) -> tuple[str | list[str], ...]:
        """The values that statements take besides their own parameters, in the order of their numbers in `_given`."""
        values: list[str | list[str]] = [
            where.values[0] if len(where.values) == 1 else list(where.values) for where in self.where
        ]
        return (*values, self.free_owner) if self.free_owner is not None else tuple(values)

    def present(self, columns: Mapping[str, Column]) -> "WorkTable":
        """Return the description fitted to the table's real `columns`."""
        error = self.error if self.setting or _holds_text(columns.get(self.error or "")) else None
        return msgspec.structs.replace(
            self,
            id_type=columns[self.id].type,
            id_base=columns[self.id].base,
            owner_type=columns[self.owner].base,
            status_type=columns[self.status].type,
            status_cast=columns[self.status].parameter,
            queue=self.queue if self.queue in columns else None,
            kind=self.kind if self.kind in columns else None,
            bump=tuple(column for column in self.bump if column in columns),
            touch=tuple(column for column in self.touch if column in columns),
            clear=tuple(column for column in self.clear if column in columns),
            error=error,
            error_type="text" if error is None else columns[error].type,
            where=tuple(
                msgspec.structs.replace(
                    where, cast=columns[where.column].parameter or _text_cast(columns[where.column])
                )
                for where in self.where
            ),
        )


class Registry(msgspec.Struct, frozen=True, kw_only=True):
    """The host's table of workers. A name is *up* while at least one of its rows has a status in `up`.

    Where there is no `status`, a row means that its worker is up, unless we ended its life since the last beat that is
    recorded in it; and no row is marked.
    """

    table: str = "worker"
    schema: str | None = None
    id: str = "id"
    name: str = "worker_name"
    status: str | None = "status"
    heartbeat: str = "last_heartbeat_at"
    online: str = "ONLINE"
    offline: str = "OFFLINE"
    # None: it has no such status.
    degraded: str | None = "DEGRADED"
    up: tuple[str, ...] = ("ONLINE", "DEGRADED")
    setting: str = ""
    # What the catalogue says.
    name_type: str = "text"
    status_type: str = "text"
    status_cast: str = ""

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that the host's table must have."""
        return (self.id, self.name, *((self.status,) if self.status else ()), self.heartbeat)

    def present(self, columns: Mapping[str, Column]) -> "Registry":
        """Return the description fitted to the table's real `columns`."""
        fitted = msgspec.structs.replace(self, name_type=columns[self.name].base)
        if self.status is None:
            return fitted
        status = columns[self.status]
        return msgspec.structs.replace(fitted, status_type=status.type, status_cast=status.parameter)


WORKFLOWS = WorkTable(work="workflow", table="workflow_execution", error="error")
TASKS = WorkTable(work="task", table="task_execution", error="error")
BUILT_IN = (WORKFLOWS, TASKS)
# Where the host has no table of workers, this one of ours serves (`schemas/postgres/liveness/0008_tables.sql`).
OWN_REGISTRY = Registry(schema="liveness")


def quoted(identifier: str) -> str:
    """Return `identifier` as Postgres reads it literally, whatever it holds."""
    return '"' + identifier.replace('"', '""') + '"'


def _text_cast(column: Column) -> str:
    return "" if column.enum else "::text"


def _holds_text(column: Column | None) -> bool:
    return column is not None and column.base in TEXTS
