"""Which indexes of the host's tables the statements in `liveness/sql` rest on, and how each is made. Pure.

None is proposed on `last_heartbeat_at`, on the registry's status or on `updated_at`: they change with every checkpoint
or every step of the work, and an index on them would cost the host more at each than it saves us in a sweep.
"""

from collections.abc import Sequence

import msgspec

from liveness.work import Registry, WorkTable, quoted

# Of an identifier, in bytes; Postgres cuts what is longer.
MOST_NAME_BYTES = 63


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """An index on `column` of a table; `where` limits it to the rows that the statements are about."""

    table: str
    column: str
    where: tuple[str, str] | None = None
    why: str
    # Which kind of work it is for; None: the registry's names. And where the table is, if not where the others are.
    work: str | None = None
    schema: str | None = None

    @property
    def predicate(self) -> str:
        """The condition on the rows that are in the index, or nothing."""
        return "" if self.where is None else f" WHERE {quoted(self.where[0])} = {literal(self.where[1])}"

    def statements(
        self, schema: str, partitions: Sequence[tuple[str, str]] = (), taken: Sequence[str] = ()
    ) -> list[str]:
        """Return what makes the index without keeping anybody from writing.

        Of a partitioned table CONCURRENTLY is refused: each of its `partitions` (schema and name of those that hold
        rows) gets its own, and the table's then adopts them, in a moment. `taken`: names that indexes have already.
        """
        names = _Names(taken)
        made = [
            f"CREATE INDEX CONCURRENTLY {quoted(names.new(name, self.column))} ON {self._on(space, name)}"
            for space, name in (partitions or [(schema, self.table)])
        ]
        if partitions:
            made.append(f"CREATE INDEX {quoted(names.new(self.table, self.column))} ON {self._on(schema, self.table)}")
        return made

    def _on(self, schema: str, table: str) -> str:
        return f"{quoted(schema)}.{quoted(table)} ({quoted(self.column)}){self.predicate};"


def needs(registry: Registry, works: Sequence[WorkTable]) -> list[Need]:
    """Return what our statements need, what matters most first."""
    return [
        *(
            Need(
                work=work.work,
                schema=work.schema,
                table=work.table,
                column=work.owner,
                where=(work.status, work.running),
                why=(
                    f"a reclaim has to find the {work.running} rows of one owner, and the sweep walks from owner to "
                    "owner; without an index both read the whole table, all that was ever finished included"
                ),
            )
            for work in works
        ),
        Need(
            schema=registry.schema,
            table=registry.table,
            column=registry.name,
            why=(
                "a reclaim and a name that is new look workers up by their name; without an index each reads the whole "
                "table"
            ),
        ),
    ]


def literal(text: str) -> str:
    """Return `text` as a literal of SQL, whatever it holds."""
    plain = "'" + text.replace("'", "''") + "'"
    return "E" + plain.replace("\\", "\\\\") if "\\" in text else plain


class _Names:
    """Names for indexes that no other has."""

    def __init__(self, taken: Sequence[str]) -> None:
        self._taken = set(taken)

    def new(self, table: str, column: str) -> str:
        """Return a name that tells what it is on and whose wish it was."""
        number = 0
        while True:
            tail = f"_{column}_liveness" + (f"_{number}" if number else "")
            name = _cut(table, MOST_NAME_BYTES - len(tail.encode())) + tail
            if name not in self._taken:
                self._taken.add(name)
                return name
            number += 1


def _cut(text: str, most: int) -> str:
    return text.encode()[: max(most, 0)].decode(errors="ignore")
